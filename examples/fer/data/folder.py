"""Read any database in class folders, with or without splits."""

import re
from collections.abc import Sequence
from pathlib import Path

import torch

from fer.data.class_folders import list_images, require_class_folders
from fer.data.faces import Database, FaceSet, read_images

SPLITS = ("train", "valid", "test")
SUBJECT = r"[^_-]+"
"""Pattern of the person in a file's name: everything up to the first dash or underscore."""

Entry = tuple[int, Path]


def load_folder(
    root: Path, classes: Sequence[str], *, subject: str = SUBJECT, progress: bool = False
) -> Database:
    """Read class folders: `train/CLASS`, `test/CLASS`, optional `valid/CLASS`, or `CLASS` alone.

    Args:
        root: the folder.
        classes: the names of the class folders, in the order of the labels. They are required,
            because alphabetical numbering by readers is how class orders get mixed up.
        subject: without splits, a regular expression whose first match in a file's name, or the
            first group of that match, identifies the person.
        progress: show progress bars.

    Raises:
        FileNotFoundError: a folder is missing.
        ValueError: classes repeat, one has no image, names do not identify people, or an image
            cannot be decoded. Everything except the decoding is checked before the first is read.
    """
    if len(set(classes)) != len(classes) or not all(classes) or not classes:
        raise ValueError(f"classes must be distinct names, got {', '.join(classes) or 'none'}")
    there = [split for split in SPLITS if (root / split).is_dir()]
    if not there:
        entries = list_labeled_images(root, classes)
        people = find_people(entries, subject)
        faces = read_entries(entries, people, progress=progress, title=root.name)
        return Database("folder", tuple(classes), {"all": faces})
    for split in ("train", "test"):
        if split not in there:
            raise FileNotFoundError(f"root: {root} has {', '.join(there)}, but no folder {split}")
    parts = {split: list_labeled_images(root / split, classes) for split in there}
    splits = {
        split: read_entries(rows, progress=progress, title=split) for split, rows in parts.items()
    }
    return Database("folder", tuple(classes), splits)


def list_labeled_images(root: Path, classes: Sequence[str]) -> list[Entry]:
    """Return the label and the path of each image in the class folders in `root`."""
    entries: list[Entry] = []
    for label, folder in require_class_folders(root, classes):
        paths = list_images(folder)
        if not paths:
            raise ValueError(f"{folder} holds no images of {classes[label]}")
        entries += [(label, path) for path in paths]
    return entries


def find_people(entries: Sequence[Entry], pattern: str) -> tuple[str, ...]:
    """Return the person in each image, according to its name."""
    people = tuple(_person(path, pattern) for _, path in entries)
    if pattern == SUBJECT and len(set(people)) == len(people):
        raise ValueError(
            f"every image names a person of its own, {people[0]} first: say how names name people "
            "(--subject REGEX), or that each image is of another person (--subject .+)"
        )
    return people


def read_entries(
    entries: Sequence[Entry],
    people: tuple[str, ...] | None = None,
    *,
    progress: bool = False,
    title: str = "images",
) -> FaceSet:
    """Read labeled images into a `FaceSet`, with the person in each if known."""
    paths = [path for _, path in entries]
    return FaceSet(
        read_images(paths, gray=False, progress=progress, title=title),
        torch.tensor([label for label, _ in entries]),
        tuple(f"{path.parent.name}/{path.name}" for path in paths),
        subjects=people,
    )


def _person(path: Path, pattern: str) -> str:
    found = re.search(pattern, path.stem)
    person = found and (found[1] if found.re.groups else found[0])
    if not person:
        raise ValueError(f"{path}: its name has no person by the pattern {pattern!r} (--subject)")
    return person
