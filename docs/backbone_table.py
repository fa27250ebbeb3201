"""The table of backbones, made from backbones.json, which tests/test_backbones.py writes."""

import json
from pathlib import Path
from typing import Any

BACKBONES_FILE = Path(__file__).with_name("backbones.json")
HEAD = ("backbone", "gives", "`auto` is", "basic feature", "P")
SIZES = ("img_size", "image_size")
"""Options that make a backbone small enough for a test; the table does not show them."""


def format_backbones() -> str:
    """Return a table of the backbones and a line on the versions of their libraries."""
    found = json.loads(BACKBONES_FILE.read_text())
    lines = [HEAD, ("---",) * len(HEAD), *(_row(row) for row in found["rows"])]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return f"{table}\n\nFound with {versions}.\n"


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    gives = _shape(row["shape"])
    if row["gives"]:
        gives = f"`{row['gives']}` {gives}"
    name = f"`{row['source']}`{_options(row)}"
    return (name, gives, _pool(row), _shape(row["pooled"]), str(row["width"]))


def _options(row: dict[str, Any]) -> str:
    options = row["options"]
    if row["source"].startswith("hf:"):
        # The other options of a small configuration are not informative.
        options = {name: options[name] for name in ("add_pooling_layer",) if name in options}
    shown = [f"`{name}={value!r}`" for name, value in options.items() if name not in SIZES]
    return ", " + ", ".join(shown) if shown else ""


def _pool(row: dict[str, Any]) -> str:
    if row["pool"] != "auto":
        return f"`{row['pool']}`"
    return "`mean`" if len(row["shape"]) == 3 else "as it is"


def _shape(sizes: list[int]) -> str:
    # Non-breaking spaces keep a shape on one line.
    return f"(N, {', '.join(str(size) for size in sizes[1:])})".replace(" ", "\N{NO-BREAK SPACE}")


def write(folder: Path) -> None:
    """Write the table to `folder`, from which a page includes it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "backbones.md").write_text(format_backbones())
