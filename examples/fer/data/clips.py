"""Databases of clips: sequences of frames from which a protocol selects a few at the peak."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from fer.data.class_folders import list_images, list_subfolders, require_class_folders
from fer.data.faces import Database, FaceSet, read_images, require_counts

NUM_PEAK_FRAMES = 3
"""Number of frames selected from each clip (section 4.1)."""

FrameSelector = Callable[[Sequence[Path]], Sequence[Path]]


@dataclass(frozen=True)
class Clip:
    """The frames, in order, of one expression of one person."""

    subject: str
    name: str
    label: int
    frames: tuple[Path, ...]


def select_last_frames(frames: Sequence[Path]) -> Sequence[Path]:
    """Return the last frames of a clip that ends at its peak."""
    return frames[-NUM_PEAK_FRAMES:]


def select_middle_frames(frames: Sequence[Path]) -> Sequence[Path]:
    """Return the frames in the middle of a clip that rises to a peak and falls again."""
    start = max(len(frames) - NUM_PEAK_FRAMES, 0) // 2
    return frames[start : start + NUM_PEAK_FRAMES]


def read_clips(root: Path, classes: Sequence[str]) -> list[Clip]:
    """Read clips from `CLASS/CLIP/FRAME.png` or `CLASS/CLIP_FRAME.png`.

    The subject is the first field of the clip's name: S010 of S010_004 or of S010-004.

    Raises:
        FileNotFoundError: `root`, or the folder of a class, is missing.
        ValueError: a name has no such fields, or a clip exists both as a folder and as files.
    """
    clips = []
    for label, folder in require_class_folders(root, classes):
        groups: dict[str, list[Path]] = {
            each.name: list_images(each) for each in list_subfolders(folder)
        }
        loose: dict[str, list[Path]] = {}
        for path in list_images(folder):
            loose.setdefault(path.stem.rpartition("_")[0], []).append(path)
        if twice := sorted(groups.keys() & loose.keys()):
            raise ValueError(f"{folder}: the clip {twice[0]} is there as a folder and as files")
        for name, frames in (groups | loose).items():
            subject, separator, _ = re.sub("-", "_", name).partition("_")
            if not subject or not separator:
                raise ValueError(
                    f"{frames[0] if name in loose else folder / name}: expected a name like "
                    "S010_004_00000017.png, or a folder like S010_004, with the person in front"
                )
            clips.append(Clip(subject, f"{folder.name}/{name}", label, tuple(frames)))
    return clips


def load_clips(
    name: str,
    root: Path,
    classes: tuple[str, ...],
    clips: Sequence[Clip],
    select_frames: FrameSelector,
    expected: Mapping[str, int],
    *,
    gray: bool = False,
    check_counts: bool = True,
    progress: bool = False,
) -> Database:
    """Read the frames that `select_frames` selects from each clip into one split, "all".

    Raises:
        ValueError: a class has no clip, a frame occurs twice, or, with `check_counts`, a clip has
            too few frames or the counts are not `expected`. These conditions are checked before
            the first image is read.
    """
    title = f"{name} in {root}"
    _require_each_class(title, classes, clips)
    _require_single_frames(title, clips)
    if check_counts:
        _require_peaks(title, clips)
    chosen = [(clip, frame) for clip in clips for frame in select_frames(clip.frames)]
    if check_counts:
        found = {
            "clips": len(clips),
            "images": len(chosen),
            "people": len({clip.subject for clip in clips}),
        }
        require_counts(title, {each: found[each] for each in expected}, expected)
    faces = FaceSet(
        read_images([frame for _, frame in chosen], gray=gray, progress=progress, title=name),
        torch.tensor([clip.label for clip, _ in chosen]),
        tuple(f"{clip.name}/{frame.name}" for clip, frame in chosen),
        subjects=tuple(clip.subject for clip, _ in chosen),
    )
    return Database(name, classes, {"all": faces})


def _require_each_class(title: str, classes: Sequence[str], clips: Sequence[Clip]) -> None:
    there = {clip.label for clip in clips if clip.frames}
    empty = [name for label, name in enumerate(classes) if label not in there]
    if empty:
        raise ValueError(f"{title}: there is no clip with frames of {', '.join(empty)}")


def _require_single_frames(title: str, clips: Sequence[Clip]) -> None:
    for clip in clips:
        stems = [frame.stem for frame in clip.frames]
        if len(set(stems)) < len(stems):
            twice = next(stem for i, stem in enumerate(stems) if stem in stems[:i])
            raise ValueError(f"{title}: {clip.name} holds more than one image called {twice}")


def _require_peaks(title: str, clips: Sequence[Clip]) -> None:
    short = [clip for clip in clips if len(clip.frames) < NUM_PEAK_FRAMES]
    if short:
        raise ValueError(
            f"{title}: {len(short)} of {len(clips)} clips have fewer than {NUM_PEAK_FRAMES} "
            f"frames, {short[0].name} among them with {len(short[0].frames)} (--no-check-counts "
            "takes what is there)"
        )
