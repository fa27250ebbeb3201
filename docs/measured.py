"""The table of real faces on a CPU, from the result files under benchmarks/results/."""

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


def tabulate_real_faces() -> str:
    """Return what the benchmark `real-faces` measured, as a table and a line about each machine."""
    files = sorted((RESULTS / "real_faces").glob("*.json"))
    runs = [json.loads(file.read_text()) for file in files]
    if not runs:
        return "*Nothing has been measured yet.*\n"
    head = ["head", "seed", "epoch", "valid", "valid, mean class", "test", "test, mean class"]
    rows = [_row(run, which) for run in runs for which in ("last", "best")]
    lines = [head, ["---"] * len(head), *rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{table}\n\nAccuracy and mean class accuracy in percent. {_machines(runs)}\n"


def _row(run: dict[str, Any], which: str) -> list[str]:
    options, epoch = run["options"], run[which]
    head = options["head"]
    if head == "fdrl":
        head += f', "{options["reduction"]}"'
    chosen = "last" if which == "last" else f"best on {run['best_chosen_on']}"
    names = [f"{split}_{kind}" for split in ("valid", "test") for kind in KINDS]
    scores = [f"{epoch[name]:.2f}" for name in names]
    return [head, str(options["seed"]), f"{epoch['epoch']} ({chosen})", *scores]


KINDS = ("accuracy", "mean_class_accuracy")


def _machines(runs: list[dict[str, Any]]) -> str:
    descriptions = [
        f"{run['options']['head']}, seed {run['options']['seed']}: "
        f"{run['seconds'] / 60:.0f} minutes on one {run['machine']}, torch {run['torch']}"
        for run in runs
    ]
    return "; ".join(descriptions) + "."


def write(folder: Path) -> None:
    """Write the table to `folder`, from which a page includes it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "real_faces.md").write_text(tabulate_real_faces())
