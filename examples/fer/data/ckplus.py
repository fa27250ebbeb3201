"""Read CK+ (Lucey et al. 2010) as its authors distribute it or as the popular 48 x 48 dump."""

from collections.abc import Mapping
from pathlib import Path

from fer.data.class_folders import list_images
from fer.data.clips import Clip, load_clips, read_clips, select_last_frames
from fer.data.faces import Database, read_text

CLASSES = ("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")
"""In the order of the official codes, 1 to 7; no clip has the code 0, neutral."""
COUNTS: Mapping[str, int] = {"clips": 327, "images": 981, "people": 118}
IMAGES = ("cohn-kanade-images", "extended-cohn-kanade-images/cohn-kanade-images")
EMOTIONS = ("Emotion", "Emotion_labels/Emotion", "emotion")
DUMP = "CK+48"


def load_ckplus(root: Path, *, check_counts: bool = True, progress: bool = False) -> Database:
    """Read the last three frames of each labeled sequence of CK+ in gray.

    The official frames are 640 x 490 or 640 x 480 and show more than the face. The paper crops the
    face first, as align_faces.py does.

    Args:
        root: the folder that contains `cohn-kanade-images` and `Emotion`, or the seven folders of
            the dump (`CK+48/anger/S010_004_00000017.png`), or the folder `CK+48` itself.
        check_counts: require the 327 sequences and 981 images of the paper, of 118 people.
        progress: show a progress bar.

    Raises:
        FileNotFoundError: the folder has neither layout or only a part of one.
        ValueError: the folder has both layouts, a label cannot be read, a sequence has too few
            frames, the counts differ, or the images differ in size.
    """
    return load_clips(
        "ckplus",
        root,
        CLASSES,
        find_clips(root, check_counts=check_counts),
        select_last_frames,
        COUNTS,
        gray=True,
        check_counts=check_counts,
        progress=progress,
    )


def find_clips(root: Path, *, check_counts: bool = True) -> list[Clip]:
    """Return the labeled sequences in `root`, which must have exactly one layout."""
    dump = root / DUMP
    images = next((root / name for name in IMAGES if (root / name).is_dir()), None)
    emotions = next((root / name for name in EMOTIONS if (root / name).is_dir()), None)
    if images is None and emotions is None:
        return read_clips(dump if dump.is_dir() else root, CLASSES)
    if dump.is_dir():
        raise ValueError(f"root: {root} holds the official CK+ and {DUMP}; move one elsewhere")
    if images is None or emotions is None:
        half, others = ("labels", IMAGES) if images is None else ("frames", EMOTIONS)
        raise FileNotFoundError(
            f"root: {root} holds the {half} of CK+ alone; looked for {', '.join(others)} in it"
        )
    return read_official_clips(images, emotions, check_counts=check_counts)


def read_official_clips(images: Path, emotions: Path, *, check_counts: bool = True) -> list[Clip]:
    """Return the sequences with a label; without `check_counts`, skip those without frames.

    Most sequences have a folder in `Emotion`; 327 of these folders contain a file with the code.
    """
    clips: dict[str, Clip] = {}
    paths = (path for path in emotions.glob("*/*/*_emotion.txt") if path.name[0] != ".")
    for path in sorted(paths):
        subject, sequence = path.parts[-3:-1]
        name, folder = f"{subject}/{sequence}", images / subject / sequence
        if name in clips:
            raise ValueError(f"{path}: {name} has more than one label")
        if folder.is_dir():
            clips[name] = Clip(subject, name, read_code(path), tuple(list_images(folder)))
        elif check_counts:
            raise FileNotFoundError(
                f"{path}: there is no folder {folder} of its frames (--no-check-counts goes on "
                "without it)"
            )
    if not clips:
        raise FileNotFoundError(f"root: {emotions} holds no label like S005/001/*_emotion.txt")
    return list(clips.values())


def read_code(path: Path) -> int:
    """Return the label in a file that contains a code such as 3.0000000e+00."""
    text = read_text(path).strip()
    try:
        code = float(text)
    except ValueError:
        code = -1.0
    if code not in range(1, len(CLASSES) + 1):
        raise ValueError(f"{path}: expected a code from 1 to {len(CLASSES)}, got {text!r}")
    return int(code) - 1
