"""Read SFEW 2.0 (Dhall et al. 2011), frames of films, with its validation set as the test set."""

from collections.abc import Mapping
from pathlib import Path

from fer.data.faces import Database, require_counts
from fer.data.folder import list_labeled_images, read_entries

CLASSES = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
COUNTS: Mapping[str, int] = {"train": 958, "test": 436}
LAYOUTS = (
    ("Train_Aligned_Faces", "Val_Aligned_Faces_new"),
    ("Train_Aligned_Faces", "Val_Aligned_Faces"),
    ("train_mtcnn", "val_mtcnn"),
    ("Train", "Val"),
    ("train", "val"),
)


def load_sfew(root: Path, *, check_counts: bool = True, progress: bool = False) -> Database:
    """Read SFEW's training faces, and its validation faces as the test split.

    The labels of SFEW's own test set were never published, so papers, including FDRL's, report
    results on its validation set. `Train` and `Val` contain whole frames of films, from which the
    paper crops the faces (see align_faces.py). SFEW's own aligned faces lack those that its
    authors' detector did not find, so they require `check_counts=False`.

    Args:
        root: the folder that contains `Train` and `Val`, or `Train_Aligned_Faces` and
            `Val_Aligned_Faces` (or `Val_Aligned_Faces_new`), or `train_mtcnn` and `val_mtcnn`,
            each with seven class folders.
        check_counts: require the 958 and 436 images of the paper.
        progress: show a progress bar for each split.

    Raises:
        FileNotFoundError: a folder is missing.
        ValueError: there is more than one pair of folders, the counts differ, or an image cannot
            be decoded. Everything except the decoding is checked before the first image is read.
    """
    found = dict(zip(COUNTS, find_pair(root), strict=True))
    entries = {split: list_labeled_images(folder, CLASSES) for split, folder in found.items()}
    if check_counts:
        require_counts(
            f"SFEW in {root}", {split: len(rows) for split, rows in entries.items()}, COUNTS
        )
    splits = {
        split: read_entries(rows, progress=progress, title=f"SFEW {split}")
        for split, rows in entries.items()
    }
    return Database("sfew", CLASSES, splits)


def find_pair(root: Path) -> tuple[Path, Path]:
    """Return the only pair of folders in `root` with training and validation faces."""
    if not root.is_dir():
        raise FileNotFoundError(f"root: there is no folder {root}")
    # Compare listed names, because a case-insensitive file system finds a folder by two names.
    there = {path.name for path in root.iterdir() if path.is_dir()}
    pairs = [pair for pair in LAYOUTS if there.issuperset(pair)]
    if not pairs:
        looked_for = ", ".join(" with ".join(pair) for pair in LAYOUTS)
        raise FileNotFoundError(f"root: no SFEW in {root}; looked for {looked_for}")
    if len(pairs) > 1:
        both = " and ".join(" with ".join(pair) for pair in pairs)
        raise ValueError(f"root: {root} holds {both}; leave one pair of them in it")
    train, test = pairs[0]
    return root / train, root / test
