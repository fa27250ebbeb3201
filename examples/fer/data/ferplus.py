"""Read FER+ (Barsoum et al. 2016): the FER-2013 faces with the votes of ten taggers each."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from fer.data.faces import (
    Database,
    FaceSet,
    read_images,
    read_text,
    require_counts,
    require_files,
)
from fer.data.votes import CLASSES, COLUMNS, majority_label, vote_shares

FOLDERS: Mapping[str, str] = {
    "train": "FER2013Train",
    "valid": "FER2013Valid",
    "test": "FER2013Test",
}
USAGES: Mapping[str, str] = {"Training": "train", "PublicTest": "valid", "PrivateTest": "test"}
# The two files are two versions of the votes, so the same rule gives different counts for them.
COUNTS: Mapping[str, Mapping[str, int]] = {
    "label.csv": {"train": 25_045, "valid": 3_191, "test": 3_137},
    "fer2013new.csv": {"train": 25_060, "valid": 3_199, "test": 3_153},
}
# Counts of the training faces that have vote shares.
SHARES_COUNTS: Mapping[str, int] = {"label.csv": 27_947, "fer2013new.csv": 27_956}
# `fer2013new.csv` has two rows for each of these, and its published counts are counts of rows.
# The first three are in the training set twice; of the last, one row is used, the other is no face.
DUPLICATED_IMAGES = ("fer0006953.png", "fer0008403.png", "fer0011785.png", "fer0033120.png")
WHOLE_IMAGE = "(0,0,48,48)"

_NAME = re.compile(r"[\w-]+\.png", re.ASCII)
_COUNT = re.compile(r"[0-9]{1,3}", re.ASCII)

Row = tuple[str, list[int]]
LabeledNames = tuple[tuple[str, ...], torch.Tensor, torch.Tensor | None]


def load_ferplus(
    root: Path,
    *,
    labels: str = "label.csv",
    shares: bool = False,
    check_counts: bool = True,
    progress: bool = False,
) -> Database:
    """Read the gray FER+ faces to which `majority_label` assigns one of eight expressions.

    Args:
        root: the folder that contains `FER2013Train`, `FER2013Valid` and `FER2013Test`, each with
            its images and its `label.csv`, and, if `labels` selects it, `fer2013new.csv`.
        labels: which votes to use, "label.csv" or "fer2013new.csv".
        shares: keep all training faces for which `vote_shares` returns a distribution, which are
            more than those with a majority, and store their shares. In valid and test, only faces
            with a majority label are kept.
        check_counts: require the counts of the full database for these votes.
        progress: show a progress bar for each split.

    Raises:
        FileNotFoundError: a folder, a label file or an image is missing.
        ValueError: a label file is malformed, or an image cannot be decoded. Everything except
            the decoding is checked before the first image is read.
    """
    if labels not in COUNTS:
        raise ValueError(f"labels must be one of {', '.join(COUNTS)}, got {labels!r}")
    require_layout(root)
    votes = read_split_votes(root) if labels == "label.csv" else read_joint_votes(root / labels)
    kept = {split: select_majority(rows) for split, rows in votes.items()}
    expected = dict(COUNTS[labels])
    if shares:
        kept["train"], expected["train"] = select_with_shares(votes["train"]), SHARES_COUNTS[labels]
    if check_counts:
        found = {split: len(names) for split, (names, *_) in kept.items()}
        require_counts(f"FER+ in {root} ({labels})", found, expected)
    paths = {
        split: [root / FOLDERS[split] / name for name in names]
        for split, (names, *_) in kept.items()
    }
    for split, files in paths.items():
        if not files:
            raise ValueError(f"{labels} in {root}: no {split} image has a majority label")
    require_files([path for files in paths.values() for path in files])
    splits = {
        split: FaceSet(
            images=read_images(paths[split], gray=True, progress=progress, title=f"FER+ {split}"),
            labels=targets,
            names=names,
            shares=distribution,
        )
        for split, (names, targets, distribution) in kept.items()
    }
    return Database("ferplus", CLASSES, splits)


def select_majority(rows: Sequence[Row]) -> LabeledNames:
    """Return the names and labels of the rows with a majority label, in order."""
    labels = majority_label(_counts(rows))
    return _select_names(rows, labels >= 0), labels[labels >= 0], None


def select_with_shares(rows: Sequence[Row]) -> LabeledNames:
    """Return names, labels and shares of the rows for which `vote_shares` is not 0, in order.

    The label is the expression with the most votes; ties take the first in the order of `CLASSES`.
    """
    shares = vote_shares(_counts(rows))
    keep = shares.sum(1) > 0
    # Not `argmax`, which does not specify which of several equal values it returns.
    most = shares == shares.amax(1, keepdim=True)
    labels = (most.cumsum(1) == 0).sum(1)
    return _select_names(rows, keep), labels[keep], shares[keep]


def _counts(rows: Sequence[Row]) -> torch.Tensor:
    return torch.tensor([counts for _, counts in rows], dtype=torch.int64).reshape(-1, len(COLUMNS))


def _select_names(rows: Sequence[Row], keep: torch.Tensor) -> tuple[str, ...]:
    return tuple(name for (name, _), kept in zip(rows, keep.tolist(), strict=True) if kept)


def require_layout(root: Path) -> None:
    """Raise `FileNotFoundError` unless `root` contains the three folders of FER+."""
    if not root.is_dir():
        raise FileNotFoundError(f"root: there is no folder {root}")
    missing = [folder for folder in FOLDERS.values() if not (root / folder).is_dir()]
    if not missing:
        return
    if (root / "train_0.png").is_file() and (root / "unpack.py").is_file():
        raise FileNotFoundError(
            f"root: {root} holds FER+ as sheets of faces; run `python unpack.py OUT` in it "
            "first and give OUT instead"
        )
    raise FileNotFoundError(f"root: no FER+ in {root}; looked for the folders {', '.join(missing)}")


def read_split_votes(root: Path) -> dict[str, list[Row]]:
    """Read the `label.csv` of each split: rows of name, face rectangle and ten counts."""
    votes: dict[str, list[Row]] = {split: [] for split in FOLDERS}
    seen: set[str] = set()
    for split, folder in FOLDERS.items():
        for where, (name, box, *counts) in _lines(root / folder / "label.csv"):
            if box.replace(" ", "") != WHOLE_IMAGE:
                raise ValueError(f"{where}: expected the rectangle {WHOLE_IMAGE}, got {box!r}")
            _require_first(name, seen, where)
            votes[split].append(_parse_row(name, counts, where))
    return votes


def read_joint_votes(path: Path) -> dict[str, list[Row]]:
    """Read `fer2013new.csv`: a header, then rows of usage, name and ten counts.

    Rows without a name have no image and are skipped.
    """
    lines = _lines(path)
    header = ["Usage", "Image name", *COLUMNS]
    where, first = next(lines)
    if first != header:
        raise ValueError(f"{where}: expected the header {','.join(header)}, got {','.join(first)}")
    votes: dict[str, list[Row]] = {split: [] for split in FOLDERS}
    seen: set[str] = set()
    for where, (usage, name, *counts) in lines:
        if usage not in USAGES:
            raise ValueError(f"{where}: expected a usage of {', '.join(USAGES)}, got {usage!r}")
        if name:
            if name not in DUPLICATED_IMAGES:
                _require_first(name, seen, where)
            votes[USAGES[usage]].append(_parse_row(name, counts, where))
    return votes


def _lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    width = 2 + len(COLUMNS)
    for number, row in enumerate(csv.reader(read_text(path).rstrip().split("\n")), start=1):
        where = f"{path}, line {number}"
        if len(row) != width:
            raise ValueError(f"{where}: expected {width} columns, got {len(row)}: {row}")
        yield where, row


def _require_first(name: str, seen: set[str], where: str) -> None:
    if name in seen:
        raise ValueError(f"{where}: {name} is listed a second time")
    seen.add(name)


def _parse_row(name: str, counts: list[str], where: str) -> Row:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{where}: expected a name like fer0000000.png, got {name!r}")
    if not all(_COUNT.fullmatch(count) for count in counts):
        raise ValueError(f"{where}: expected {len(COLUMNS)} counts of votes, got {counts}")
    return name, [int(count) for count in counts]
