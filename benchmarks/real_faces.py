"""Train FDRL and the paper's baseline on FER+ with one recipe and write the results.

    python -m benchmarks real-faces --data DIR [--heads fdrl linear] [--seeds 0 1 2] [--runs DIR]

Writes one file per run to benchmarks/results/real_faces/, from which the documentation's
Reproduction page is built. A finished run is not repeated, and a stopped run is resumed. Further
arguments are passed to examples/fer_rafdb.py.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fer_rafdb
from benchmarks import schema
from fer.model.checkpoint import write_json

RESULTS = schema.RESULTS / "real_faces"


def train_or_load(folder: Path, arguments: list[str]) -> dict[str, Any]:
    """Return the summary of the run in `folder`; start or resume the run if it has not finished."""
    summary = folder / "summary.json"
    if not summary.is_file():
        resumable = (folder / "last.pt").is_file()
        fer_rafdb.main(
            ["--resume", str(folder)] if resumable else [*arguments, "--out", str(folder)]
        )
    result: dict[str, Any] = json.loads(summary.read_text())
    # The location of the faces is private.
    del result["options"]["data"]
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the missing runs and write the results."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks real-faces",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", required=True, help="where FER+ lies")
    parser.add_argument("--heads", nargs="+", default=["fdrl", "linear"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/real_faces"))
    known, further = parser.parse_known_args(arguments)
    for seed in known.seeds:
        for head in known.heads:
            name = f"ferplus-{head}-seed{seed}"
            arguments = ["--dataset", "ferplus", "--data", known.data, "--head", head]
            arguments += ["--seed", str(seed), *further]
            result = train_or_load(known.runs / name, arguments)
            RESULTS.mkdir(parents=True, exist_ok=True)
            write_json(RESULTS / f"{name}.json", result)
