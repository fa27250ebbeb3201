"""Store the results of runs: one file per study and scale, with one line per run.

A run that belongs to several studies is stored once, in the file of the first that required it.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.machine import Machine
from benchmarks.schema import RESULTS, check_content, load, round_numbers

FORMAT = 1
DIGITS = 6
"""Significant digits of the numbers in a file."""
STUDIES = RESULTS / "studies"


@dataclass(frozen=True)
class TrainedRun:
    """The results of a run that has ended.

    Attributes:
        key: Key of its row.
        scale: Name of the scale.
        seed: Seed of weights, order and crops.
        options: All its options except the location of the faces.
        faces: Number of faces in each split.
        history: Results of each epoch on the training and the validation faces.
        scores: Accuracy and mean class accuracy after the last epoch, by split.
        confusion: Confusion matrix of the test faces after the last epoch, a row per true class.
        classes: Names of the classes.
        seconds: Running time.
        date: Date on which it ended.
        machine: The machine of the run.
        intra_spread: How Intra-W varies over the test faces (`fdrl_layers.IntraSpread`); None
            without Intra-W and for runs from before it was measured.
    """

    key: str
    scale: str
    seed: int
    options: dict[str, Any]
    faces: dict[str, int]
    history: list[dict[str, float]]
    scores: dict[str, dict[str, float]]
    confusion: list[list[int]]
    classes: list[str]
    seconds: float
    date: str
    machine: Machine
    intra_spread: dict[str, Any] | None = None


Runs = Mapping[tuple[str, int], TrainedRun]
"""Runs by the key of their row and their seed."""


def load_runs(scale: str, folder: Path = STUDIES) -> Runs:
    """Read all runs of a scale.

    Raises:
        ValueError: if a file does not follow this module's format or contains a run twice.
    """
    found: dict[tuple[str, int], TrainedRun] = {}
    for path in _files(scale, folder):
        runs = _read(path)
        if twice := found.keys() & runs.keys():
            raise ValueError(f"{path.name}: {min(twice)} is in another file too")
        found |= runs
    return found


def save_run(run: TrainedRun, study: str, folder: Path = STUDIES) -> Path:
    """Replace the run of the same row and seed or add it to the study's file; return the path."""
    key = (run.key, run.seed)
    there = (path for path in _files(run.scale, folder) if key in _read(path))
    path = next(there, folder / run.scale / f"{study}.jsonl")
    runs = {**(_read(path) if path.is_file() else {}), key: run}
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (_format_line(each) for _, each in sorted(runs.items(), key=lambda item: item[0]))
    draft = path.with_suffix(".draft")
    draft.write_text("".join(f"{line}\n" for line in lines))
    draft.replace(path)
    return path


def _files(scale: str, folder: Path) -> list[Path]:
    return sorted((folder / scale).glob("*.jsonl"))


def _format_line(run: TrainedRun) -> str:
    content = {"format": FORMAT, **round_numbers(dataclasses.asdict(run), DIGITS)}
    if run.intra_spread is None:
        del content["intra_spread"]
    return json.dumps(content, ensure_ascii=False)


def _read(path: Path) -> Runs:
    # A documentation page reads the same files hundreds of times.
    state = path.stat()
    return _read_unchanged(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=64)
def _read_unchanged(path: Path, _changed: int, _size: int) -> Runs:
    runs: dict[tuple[str, int], TrainedRun] = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        where = f"{path.name}, line {number}"
        content = check_content(where, json.loads(line), known=(FORMAT,))
        del content["format"]
        run = load(where, TrainedRun, {"intra_spread": None, **content})
        if (run.key, run.seed) in runs:
            raise ValueError(f"{where}: {run.key} with seed {run.seed} is there twice")
        runs[run.key, run.seed] = run
    return runs
