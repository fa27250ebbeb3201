"""The results of runs, a file each: what was trained, how it went and on what."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import Machine
from benchmarks.schema import RESULTS, content_of, load, rounded
from benchmarks.studies.plan import Row

FORMAT = 1
DIGITS = 6
"""Of the numbers in a file."""
STUDIES = RESULTS / "studies"


@dataclass(frozen=True)
class Trained:
    """A run that has ended.

    Attributes:
        key: Of its row.
        scale: Its name.
        seed: Of weights, order and crops.
        options: All that decided it, but for where the faces lie.
        faces: How many there are in each split.
        history: What each epoch came to, on the training and the validation faces.
        scores: Accuracy and mean class accuracy after the last epoch, by split.
        confusion: Of the test faces after the last epoch, a row for each true class.
        classes: Their names.
        seconds: That it took.
        date: When it ended.
        machine: What it ran on.
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


def path_of(row: Row, scale: str, seed: int, folder: Path = STUDIES) -> Path:
    """Return where the result of a row and a seed is."""
    return folder / scale / f"{row.key(scale)}-seed{seed}.json"


def write(path: Path, trained: Trained) -> None:
    """Write a result, numbers rounded to what they mean."""
    content = {"format": FORMAT, **rounded(dataclasses.asdict(trained), DIGITS)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def read(path: Path) -> Trained:
    """Read a result, and raise where a file is not what this module writes."""
    content = content_of(path, known=(FORMAT,))
    del content["format"]
    return load(path, Trained, content)
