"""CK+ (Lucey et al. 2010), as its authors distribute it and as the popular 48 x 48 dump."""

from collections.abc import Mapping
from pathlib import Path

from fer.data.class_folders import images_in
from fer.data.clips import Clip, clips_in_class_folders, last_frames, load_clips
from fer.data.faces import Database, read_text

CLASSES = ("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")
"""In the order of the official codes, 1 to 7; 0 is neutral, which no clip is labeled."""
COUNTS: Mapping[str, int] = {"clips": 327, "images": 981}
IMAGES = ("cohn-kanade-images", "extended-cohn-kanade-images/cohn-kanade-images")
EMOTIONS = ("Emotion", "Emotion_labels/Emotion", "emotion")


def load_ckplus(root: Path, *, check_counts: bool = True, progress: bool = False) -> Database:
    """Read the last three frames of each labeled sequence of CK+, gray.

    Args:
        root: the folder that holds `cohn-kanade-images` and `Emotion`, or the seven folders of
            the dump (`CK+48/anger/S010_004_00000017.png`), or the folder `CK+48` itself.
        check_counts: require the 327 sequences and 981 images of the paper.
        progress: show a bar.

    Raises:
        FileNotFoundError: the folder is in neither layout.
        ValueError: a label cannot be read, a sequence has too few frames, the counts differ, or
            the images are not of one size: crop the official ones by align_faces.py first.
    """
    clips = official_clips(root) or clips_in_class_folders(dump_in(root), CLASSES)
    return load_clips(
        "ckplus",
        root,
        CLASSES,
        clips,
        last_frames,
        COUNTS,
        gray=True,
        check_counts=check_counts,
        progress=progress,
    )


def dump_in(root: Path) -> Path:
    """Return the folder that holds the class folders of the 48 x 48 dump."""
    return root / "CK+48" if (root / "CK+48").is_dir() else root


def official_clips(root: Path) -> list[Clip]:
    """Read the labeled sequences of the official layout; none where `root` is not in it.

    Most sequences have a folder in `Emotion`, and of these 327 hold a file with the code.
    """
    images = next((root / name for name in IMAGES if (root / name).is_dir()), None)
    emotions = next((root / name for name in EMOTIONS if (root / name).is_dir()), None)
    if images is None or emotions is None:
        return []
    clips = []
    for path in sorted(emotions.glob("*/*/*_emotion.txt")):
        subject, sequence = path.parts[-3:-1]
        folder = images / subject / sequence
        if not folder.is_dir():
            raise FileNotFoundError(f"{path}: there is no folder {folder} of its frames")
        frames = tuple(images_in(folder))
        clips.append(Clip(subject, f"{subject}/{sequence}", read_code(path), frames))
    return clips


def read_code(path: Path) -> int:
    """Return the label of a file that holds a code like 3.0000000e+00."""
    text = read_text(path).strip()
    try:
        code = float(text)
    except ValueError:
        code = -1.0
    if code not in range(1, len(CLASSES) + 1):
        raise ValueError(f"{path}: expected a code from 1 to {len(CLASSES)}, got {text!r}")
    return int(code) - 1
