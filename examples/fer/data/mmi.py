"""MMI (Valstar and Pantic 2010), its videos taken apart into frames, sorted by expression."""

from collections.abc import Mapping
from pathlib import Path

from fer.data.class_folders import EXPRESSIONS
from fer.data.clips import clips_in_class_folders, load_clips, middle_frames
from fer.data.faces import Database

CLASSES = EXPRESSIONS
COUNTS: Mapping[str, int] = {"clips": 205, "images": 615}


def load_mmi(root: Path, *, check_counts: bool = True, progress: bool = False) -> Database:
    """Read three peak frames of each of MMI's sequences with a basic expression.

    MMI is distributed as videos, one folder a session, that rise from neutral to a peak and fall
    again. Which three frames the paper calls the peak is not said: these are the middle three of
    what is there, so a folder with three hand-picked frames gives just those.

    Args:
        root: the folder with six class folders, in each `S001-001/FRAME.png` for every sequence, or
            `S001-001_FRAME.png`.
        check_counts: require the 205 sequences and 615 images of the paper.
        progress: show a bar.

    Raises:
        FileNotFoundError: the folder, or one of a class, is missing.
        ValueError: a sequence has too few frames, the counts differ, or the images are not of one
            size.
    """
    clips = clips_in_class_folders(root, CLASSES)
    return load_clips(
        "mmi",
        root,
        CLASSES,
        clips,
        middle_frames,
        COUNTS,
        check_counts=check_counts,
        progress=progress,
    )
