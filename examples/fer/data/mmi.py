"""Read MMI (Valstar and Pantic 2010) from frames of its videos in one folder per expression."""

from collections.abc import Mapping
from pathlib import Path

from fer.data.class_folders import EXPRESSIONS
from fer.data.clips import load_clips, read_clips, select_middle_frames
from fer.data.faces import Database

CLASSES = EXPRESSIONS
COUNTS: Mapping[str, int] = {"clips": 205, "images": 615}


def load_mmi(root: Path, *, check_counts: bool = True, progress: bool = False) -> Database:
    """Read three peak frames of each of MMI's sequences with a basic expression.

    MMI is distributed as videos, one folder per session, in which the expression rises from neutral
    to a peak and falls again. The paper does not specify its three peak frames. This function uses
    the middle three of each folder; three hand-picked frames in a folder are used as they are.

    Args:
        root: the folder with six class folders, each of which contains `S001-001/FRAME.png` or
            `S001-001_FRAME.png` for every sequence.
        check_counts: require the 205 sequences and 615 images of the paper.
        progress: show a progress bar.

    Raises:
        FileNotFoundError: the folder or the folder of a class is missing.
        ValueError: a sequence has too few frames, the counts differ, or the images differ in
            size.
    """
    clips = read_clips(root, CLASSES)
    return load_clips(
        "mmi",
        root,
        CLASSES,
        clips,
        select_middle_frames,
        COUNTS,
        check_counts=check_counts,
        progress=progress,
    )
