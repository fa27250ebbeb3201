"""Read annotated eyes from a CSV file or from the annotations that come with RAF-DB."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from fer.data.faces import read_text

COLUMNS = ("left_x", "left_y", "right_x", "right_y")
RAFDB = "_manu_attri.txt"


def read_landmarks(path: Path) -> dict[str, Tensor]:
    """Return the eyes (2, 2) of every picture that `path` lists.

    Args:
        path: a CSV file with the columns name, left_x, left_y, right_x, right_y, optionally with a
            header and more columns. A name is a path relative to the folder of pictures, with or
            without suffix. Or the folder `Annotation/manual` of RAF-DB, whose files have five
            points each (left eye, right eye, nose, corners of the mouth), then gender, race, age.

    Raises:
        FileNotFoundError: `path` does not exist.
        ValueError: a line is malformed, or a name occurs twice.
    """
    return _read_rafdb(path) if path.is_dir() else _read_csv(path)


def find_eyes(landmarks: Mapping[str, Tensor], name: str) -> Tensor | None:
    """Return the eyes of a picture by its name, or by its name without suffix; None if unknown."""
    return landmarks.get(name, landmarks.get(str(PurePosixPath(name).with_suffix(""))))


def _read_csv(path: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    rows = csv.reader(read_text(path).splitlines())
    for number, row in enumerate(rows, start=1):
        if not row or (number == 1 and tuple(each.strip() for each in row[1:5]) == COLUMNS):
            continue
        where = f"{path}, line {number}"
        if row[0] in found:
            raise ValueError(f"{where}: {row[0]} is listed a second time")
        found[row[0]] = _points(row[1:5], f"{where}: expected name,{','.join(COLUMNS)}")
    return found


def _read_rafdb(path: Path) -> dict[str, Tensor]:
    files = sorted(path.glob(f"*{RAFDB}"))
    if not files:
        raise ValueError(f"{path} holds no file like train_00001{RAFDB}")
    found = {}
    for file in files:
        numbers = [number for line in read_text(file).splitlines()[:2] for number in line.split()]
        found[file.name.removesuffix(RAFDB)] = _points(
            numbers, f"{file}: expected an eye's x and y in each of the first two lines"
        )
    return found


def _points(numbers: Iterable[str], expected: str) -> Tensor:
    values = list(numbers)
    try:
        return torch.tensor([float(each) for each in values]).double().reshape(2, 2)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{expected}, got {' '.join(values) or 'nothing'}") from error
