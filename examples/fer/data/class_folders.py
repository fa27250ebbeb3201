"""Folders named after expressions, whatever word their owner took for each."""

from collections.abc import Sequence
from pathlib import Path

SYNONYMS = {
    "anger": ("angry", "an"),
    "contempt": ("contemptuous", "co"),
    "disgust": ("disgusted", "di"),
    "fear": ("fearful", "afraid", "fe"),
    "happiness": ("happy", "joy", "ha"),
    "neutral": ("normal", "ne"),
    "sadness": ("sad", "sa"),
    "surprise": ("surprised", "su"),
}
EXPRESSIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
"""The six basic expressions, in the order in which MMI and Oulu-CASIA are labeled here."""

IMAGES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff"))


def class_folders(root: Path, classes: Sequence[str]) -> list[Path]:
    """Return the folder of each class, in the order of `classes`.

    Folders that name no expression at all are passed over; one that names an expression outside
    `classes`, such as neutral, is too, as databases often hold more than a protocol uses.

    Raises:
        FileNotFoundError: `root` is no folder, or has none for a class.
        ValueError: two folders stand for one class.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"root: there is no folder {root}")
    found: dict[str, list[Path]] = {name: [] for name in classes}
    for folder in subfolders(root):
        for name in classes:
            if folder.name.lower() in (name.lower(), *SYNONYMS.get(name.lower(), ())):
                found[name].append(folder)
    missing = [name for name, folders in found.items() if not folders]
    if missing:
        there = ", ".join(folder.name for folder in subfolders(root)) or "no folder"
        raise FileNotFoundError(
            f"root: {root} has no folder for {', '.join(missing)}; found {there}"
        )
    for name, folders in found.items():
        if len(folders) > 1:
            both = " and ".join(folder.name for folder in folders)
            raise ValueError(f"{root}: the folders {both} both stand for {name}")
    return [found[name][0] for name in classes]


def subfolders(root: Path) -> list[Path]:
    """Return the folders in `root`, by name, without hidden ones."""
    return sorted(
        path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def images_in(folder: Path) -> list[Path]:
    """Return the image files in `folder`, by name."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGES and not path.name.startswith(".")
    )
