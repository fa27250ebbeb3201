"""Train FDRL and the paper's baseline on FER+ by one recipe, and keep what came out.

    python -m benchmarks real-faces --data DIR [--heads fdrl linear] [--seeds 0 1 2] [--runs DIR]

Writes a file a run to benchmarks/results/real_faces/, from which the documentation's Reproduction
page is made. A run that is finished is not repeated, and one that was stopped goes on. Further
arguments go to examples/fer_rafdb.py.
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


def result_of(folder: Path, arguments: list[str]) -> dict[str, Any]:
    """Return the summary of the run in `folder`, after starting or finishing it if need be."""
    summary = folder / "summary.json"
    if not summary.is_file():
        resumable = (folder / "last.pt").is_file()
        fer_rafdb.main(
            ["--resume", str(folder)] if resumable else [*arguments, "--out", str(folder)]
        )
    result: dict[str, Any] = json.loads(summary.read_text())
    # Where the faces lie concerns nobody else.
    del result["options"]["data"]
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is not there yet, and write the results."""
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
            result = result_of(known.runs / name, arguments)
            RESULTS.mkdir(parents=True, exist_ok=True)
            write_json(RESULTS / f"{name}.json", result)
