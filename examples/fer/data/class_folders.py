"""Find folders named after expressions, with support for synonyms of the class names."""

import re
from collections.abc import Iterable, Sequence
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

_MEANINGS = {word: name for name, words in SYNONYMS.items() for word in words}


def require_class_folders(root: Path, classes: Sequence[str]) -> list[tuple[int, Path]]:
    """Return the label and the folder of each class, in the order of `classes`.

    Other folders are skipped, because databases often contain more than a protocol uses.

    Raises:
        FileNotFoundError: `root` is not a folder, or has no folder for a class.
        ValueError: two folders match the same class.
    """
    found = find_class_folders(root, classes)
    labels = {label for label, _ in found}
    missing = [name for label, name in enumerate(classes) if label not in labels]
    if missing:
        there = ", ".join(folder.name for folder in list_subfolders(root)) or "no folder"
        raise FileNotFoundError(
            f"root: {root} has no folder for {', '.join(missing)}; found {there}"
        )
    return found


def find_class_folders(root: Path, classes: Sequence[str]) -> list[tuple[int, Path]]:
    """Return the label and the folder of each class that has one, in the order of `classes`."""
    if not root.is_dir():
        raise FileNotFoundError(f"root: there is no folder {root}")
    found: dict[int, Path] = {}
    for folder in list_subfolders(root):
        label = find_label(folder.name, classes)
        if label in found:
            both = f"{found[label].name} and {folder.name}"
            raise ValueError(f"{root}: the folders {both} both stand for {classes[label]}")
        if label is not None:
            found[label] = folder
    return sorted(found.items())


def find_label(word: str, classes: Sequence[str]) -> int | None:
    """Return the class with exactly this name, or else the class with the same meaning, or None."""
    if word in classes:
        return classes.index(word)
    meanings = [_resolve_synonym(name) for name in classes]
    return meanings.index(_resolve_synonym(word)) if _resolve_synonym(word) in meanings else None


def list_subfolders(root: Path) -> list[Path]:
    """Return the folders in `root`, without hidden ones, in natural order of their names."""
    return _sort_naturally(
        path for path in root.iterdir() if path.is_dir() and not _is_hidden(path)
    )


def list_images(folder: Path) -> list[Path]:
    """Return the image files in `folder` in natural order of their names."""
    return _sort_naturally(
        path for path in folder.iterdir() if path.suffix.lower() in IMAGES and not _is_hidden(path)
    )


def _resolve_synonym(word: str) -> str:
    return _MEANINGS.get(word.lower(), word.lower())


def _is_hidden(path: Path) -> bool:
    # Archives created on a Mac contain a second tree with this name.
    return path.name.startswith(".") or path.name == "__MACOSX"


def _sort_naturally(paths: Iterable[Path]) -> list[Path]:
    # Frames are often numbered without leading zeros, and 10 must come after 9.
    return sorted(paths, key=lambda path: (_split_numbers(path.name), path.name))


def _split_numbers(name: str) -> list[str | int]:
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]
