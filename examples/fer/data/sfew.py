"""SFEW 2.0 (Dhall et al. 2011): frames of films, its validation set taken for the test set."""

from collections.abc import Mapping
from pathlib import Path

from fer.data.faces import Database, require_counts
from fer.data.folder import read_split

CLASSES = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
COUNTS: Mapping[str, int] = {"train": 958, "test": 436}
FOLDERS: Mapping[str, tuple[str, ...]] = {
    "train": ("Train_Aligned_Faces", "train_mtcnn", "Train", "train"),
    "test": ("Val_Aligned_Faces_new", "Val_Aligned_Faces", "val_mtcnn", "Val", "val"),
}


def load_sfew(root: Path, *, check_counts: bool = True, progress: bool = False) -> Database:
    """Read SFEW's training faces, and its validation faces as the test split.

    The labels of SFEW's own test set were never published, so the field, the paper among it,
    reports its validation set.

    Args:
        root: the folder that holds `Train` and `Val`, or `Train_Aligned_Faces` and
            `Val_Aligned_Faces`, or `train_mtcnn` and `val_mtcnn`, each with seven class folders.
        check_counts: require the 958 and 436 images of the paper.
        progress: show a bar for each split.

    Raises:
        FileNotFoundError: a folder is missing.
        ValueError: a split is there twice, the counts differ, or an image cannot be decoded.
    """
    splits = {
        split: read_split(
            _only(root, split, names), CLASSES, progress=progress, title=f"SFEW {split}"
        )
        for split, names in FOLDERS.items()
    }
    if check_counts:
        found = {split: len(faces) for split, faces in splits.items()}
        require_counts(f"SFEW in {root}", found, COUNTS)
    return Database("sfew", CLASSES, splits)


def _only(root: Path, split: str, names: tuple[str, ...]) -> Path:
    # A file system that ignores case shows one folder under two names.
    there = {path.name: path for path in root.iterdir()} if root.is_dir() else {}
    found = [there[name] for name in names if name in there and there[name].is_dir()]
    if not found:
        raise FileNotFoundError(
            f"root: {root} has no folder of {split} faces; looked for {', '.join(names)}"
        )
    if len(found) > 1:
        both = ", ".join(path.name for path in found)
        raise ValueError(f"root: {root} has more than one folder of {split} faces: {both}")
    return found[0]
