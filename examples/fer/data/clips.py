"""Databases of clips: sequences of frames, of which a protocol takes the few at the peak."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from fer.data.class_folders import class_folders, images_in, subfolders
from fer.data.faces import Database, FaceSet, read_images, require_counts

PEAK = 3
"""Frames that are taken of each clip (section 4.1)."""

Choice = Callable[[Sequence[Path]], Sequence[Path]]


@dataclass(frozen=True)
class Clip:
    """The frames of one expression of one person, in their order."""

    subject: str
    name: str
    label: int
    frames: tuple[Path, ...]


def last_frames(frames: Sequence[Path]) -> Sequence[Path]:
    """Return the last frames of a clip that ends at its peak."""
    return frames[-PEAK:]


def middle_frames(frames: Sequence[Path]) -> Sequence[Path]:
    """Return the frames in the middle of a clip that rises to a peak and falls again."""
    start = max(len(frames) - PEAK, 0) // 2
    return frames[start : start + PEAK]


def clips_in_class_folders(root: Path, classes: Sequence[str]) -> list[Clip]:
    """Read clips from `CLASS/CLIP/FRAME.png` or `CLASS/CLIP_FRAME.png`.

    The subject is the first field of the clip's name: S010 of S010_004 or of S010-004.
    """
    clips = []
    for label, folder in enumerate(class_folders(root, classes)):
        groups: dict[str, list[Path]] = {each.name: images_in(each) for each in subfolders(folder)}
        for path in images_in(folder):
            name, separator, _ = path.stem.rpartition("_")
            if not separator:
                raise ValueError(f"{path}: expected a name like S010_004_00000017.png")
            groups.setdefault(name, []).append(path)
        for name, frames in sorted(groups.items()):
            subject = re.split(r"[_-]", name)[0]
            clips.append(Clip(subject, f"{folder.name}/{name}", label, tuple(frames)))
    return clips


def load_clips(
    name: str,
    root: Path,
    classes: tuple[str, ...],
    clips: Sequence[Clip],
    peak: Choice,
    expected: Mapping[str, int],
    *,
    gray: bool = False,
    check_counts: bool = True,
    progress: bool = False,
) -> Database:
    """Read the frames that `peak` chooses of each clip into one split, "all".

    Raises:
        ValueError: there is no clip, one has too few frames, or, with `check_counts`, their number
            is not `expected`. This is checked before the first image is read.
    """
    if not clips:
        raise ValueError(f"{name} in {root}: no clip has frames")
    short = [clip.name for clip in clips if len(clip.frames) < PEAK]
    if short and check_counts:
        raise ValueError(
            f"{name} in {root}: {len(short)} clips have fewer than {PEAK} frames, {short[0]} among "
            "them (--no-check-counts takes what is there)"
        )
    chosen = [(clip, frame) for clip in clips for frame in peak(clip.frames)]
    if check_counts:
        found = {"clips": len(clips), "images": len(chosen)}
        require_counts(f"{name} in {root}", found, expected)
    faces = FaceSet(
        read_images([frame for _, frame in chosen], gray=gray, progress=progress, title=name),
        torch.tensor([clip.label for clip, _ in chosen]),
        tuple(f"{clip.name}/{frame.name}" for clip, frame in chosen),
        subjects=tuple(clip.subject for clip, _ in chosen),
    )
    return Database(name, classes, {"all": faces})
