"""Read the seven basic expressions of RAF-DB (Li et al. 2017) as its authors distribute it."""

import re
from collections.abc import Mapping
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

CLASSES = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
COUNTS: Mapping[str, int] = {"train": 12_271, "test": 3_068}
BASE_FOLDERS = ("basic", "raf-basic")
LIST_FILE = "EmoLabel/list_patition_label.txt"
IMAGE_FOLDER = "Image/aligned"
ENDINGS = (".jpg", ".jpeg", ".png")

_LINE = re.compile(r"(?P<name>\S+\.jpg)[ \t]+(?P<label>-?[0-9]{1,9})", re.ASCII)
_COARSE = re.compile(rf"{_LINE.pattern}[ \t]+-?[0-9]+", re.ASCII)
_NAME = re.compile(r"(?P<split>train|test)_[\w-]+\.jpg", re.ASCII)

Entry = tuple[str, int]


def load_rafdb(root: Path, *, check_counts: bool = True, progress: bool = False) -> Database:
    """Read the aligned faces of RAF-DB's basic expressions.

    Args:
        root: the folder that contains `basic` (or `raf-basic`), or that folder itself, which
            contains `EmoLabel/list_patition_label.txt` and `Image/aligned/`.
        check_counts: require the 12,271 training and 3,068 test images of the full database.
        progress: show a progress bar for each split.

    Raises:
        FileNotFoundError: the folder, the list or an image is missing.
        ValueError: the list is malformed, or an image cannot be decoded. Everything except the
            decoding is checked before the first image is read.
    """
    base = find_base(root)
    entries = parse_list(base / LIST_FILE)
    if check_counts:
        found = {split: len(rows) for split, rows in entries.items()}
        require_counts(f"RAF-DB in {base}", found, COUNTS)
    found_images = find_images(base / IMAGE_FOLDER)
    paths = {
        split: [
            found_images.get(stem, base / IMAGE_FOLDER / f"{stem}.jpg")
            for stem in (f"{Path(name).stem}_aligned" for name, _ in rows)
        ]
        for split, rows in entries.items()
    }
    require_files([path for split in paths.values() for path in split])
    splits = {
        split: FaceSet(
            images=read_images(
                paths[split], gray=False, progress=progress, title=f"RAF-DB {split}"
            ),
            labels=torch.tensor([label for _, label in rows]),
            names=tuple(name for name, _ in rows),
        )
        for split, rows in entries.items()
    }
    return Database("rafdb", CLASSES, splits)


def find_images(folder: Path) -> dict[str, Path]:
    """Return the images of a folder with any suffix in :data:`ENDINGS`, by name without suffix.

    If two images differ in their suffix alone, the one whose suffix comes first is used.
    """
    order = {ending: i for i, ending in enumerate(ENDINGS)}
    found = [path for path in folder.glob("*") if path.suffix.lower() in order]
    found.sort(key=lambda path: (order[path.suffix.lower()], path.name), reverse=True)
    return {path.stem: path for path in found}


def find_base(root: Path) -> Path:
    """Return the only folder at or directly under `root` that contains the list and the images."""
    if not root.is_dir():
        raise FileNotFoundError(f"root: there is no folder {root}")
    candidates = (root, *(root / name for name in BASE_FOLDERS))
    bases = [path for path in candidates if (path / LIST_FILE).parent.is_dir()]
    if not bases:
        looked_for = ", ".join(str((path / LIST_FILE).parent) for path in candidates)
        raise FileNotFoundError(
            f"root: no RAF-DB in {root}; looked for the folders {looked_for} "
            f"(with {Path(LIST_FILE).name} in it, and {IMAGE_FOLDER} beside it)"
        )
    if len(bases) > 1:
        raise ValueError(
            f"root: {root} holds more than one RAF-DB: {', '.join(map(str, bases))}; "
            "name the one to read"
        )
    return bases[0]


def parse_list(path: Path) -> dict[str, list[Entry]]:
    """Return the names and labels (from 0) of each split, in the order of the list file."""
    entries: dict[str, list[Entry]] = {split: [] for split in COUNTS}
    seen: set[str] = set()
    for number, line in enumerate(read_text(path).rstrip().split("\n"), start=1):
        where = f"{path}, line {number}"
        split, entry = _parse_line(line.strip(), where)
        if entry[0] in seen:
            raise ValueError(f"{where}: {entry[0]} is listed a second time")
        seen.add(entry[0])
        entries[split].append(entry)
    for split, rows in entries.items():
        if not rows:
            raise ValueError(f"{path} lists no {split} images")
    return entries


def _parse_line(line: str, where: str) -> tuple[str, Entry]:
    fields = _LINE.fullmatch(line)
    if fields is None and _COARSE.fullmatch(line):
        raise ValueError(
            f"{where}: expected a line like 'train_00001.jpg 5', got {line!r}; a third column, as "
            "of a coarse label, is not in the list that RAF-DB comes with"
        )
    if fields is None:
        raise ValueError(f"{where}: expected a line like 'train_00001.jpg 5', got {line!r}")
    name = _NAME.fullmatch(fields["name"])
    if name is None:
        raise ValueError(
            f"{where}: expected a name like train_00001.jpg or test_0001.jpg, "
            f"got {fields['name']!r}"
        )
    label = int(fields["label"])
    if not 1 <= label <= len(CLASSES):
        raise ValueError(f"{where}: expected a label from 1 to {len(CLASSES)}, got {label}")
    return name["split"], (name[0], label - 1)
