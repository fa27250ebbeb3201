"""Any database that lies in class folders, with or without splits."""

import re
from collections.abc import Sequence
from pathlib import Path

import torch

from fer.data.class_folders import class_folders, images_in
from fer.data.faces import Database, FaceSet, read_images

SPLITS = ("train", "valid", "test")
SUBJECT = r"[^_-]+"
"""What names the person in a file's name: all up to the first dash or underscore."""


def load_folder(
    root: Path, classes: Sequence[str], *, subject: str = SUBJECT, progress: bool = False
) -> Database:
    """Read class folders: `train/CLASS`, `test/CLASS` and perhaps `valid/CLASS`, or `CLASS` alone.

    Args:
        root: the folder.
        classes: the names of the class folders, in the order that labels are to have. Readers that
            number classes by their folders' alphabet are how class orders get mixed up.
        subject: without splits, a regular expression whose first match in a file's name, or its
            first group there, names the person.
        progress: show bars.

    Raises:
        FileNotFoundError: a folder is missing.
        ValueError: classes repeat, a file's name names no person, or an image cannot be decoded.
    """
    if len(set(classes)) != len(classes) or not classes:
        raise ValueError(f"classes must be distinct names, got {', '.join(classes) or 'none'}")
    there = [split for split in SPLITS if (root / split).is_dir()]
    if there:
        missing = {"train", "test"} - set(there)
        if missing:
            raise FileNotFoundError(f"root: {root} has no folder {min(missing)}")
        splits = {
            split: read_split(root / split, classes, progress=progress, title=split)
            for split in there
        }
    else:
        splits = {"all": read_split(root, classes, subject, progress=progress, title=root.name)}
    return Database("folder", tuple(classes), splits)


def read_split(
    root: Path,
    classes: Sequence[str],
    subject: str | None = None,
    *,
    progress: bool = False,
    title: str = "images",
) -> FaceSet:
    """Read all images of the class folders in `root`, and with `subject` who is in each."""
    entries = [
        (label, path)
        for label, folder in class_folders(root, classes)
        for path in images_in(folder)
    ]
    if not entries:
        raise ValueError(f"{root}: the class folders hold no images")
    paths = [path for _, path in entries]
    return FaceSet(
        read_images(paths, gray=False, progress=progress, title=title),
        torch.tensor([label for label, _ in entries]),
        tuple(f"{path.parent.name}/{path.name}" for path in paths),
        subjects=None if subject is None else tuple(_subject(path, subject) for path in paths),
    )


def _subject(path: Path, pattern: str) -> str:
    found = re.search(pattern, path.stem)
    if found is None:
        raise ValueError(f"{path}: its name has no person by the pattern {pattern!r}")
    return found[1] if found.re.groups else found[0]
