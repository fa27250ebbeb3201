"""Databases on disk in the layouts that people have them in, of images of one gray level each."""

import io
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import torch
from PIL import Image

from fer.data import Database

CK48_CLIPS: Mapping[str, int] = {
    "anger": 45,
    "contempt": 18,
    "disgust": 59,
    "fear": 25,
    "happy": 69,
    "sadness": 28,
    "surprise": 83,
}
"""Sequences in each folder of the 48 x 48 dump of CK+; each has three images."""
CK48_PEOPLE = 118


def write_image(
    path: Path, level: int = 0, size: tuple[int, int] = (4, 4), mode: str = "L"
) -> None:
    """Write an image (width, height) of one gray level, and the folders that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_encode(level, size, mode, path.suffix.lower()))


@cache
def _encode(level: int, size: tuple[int, int], mode: str, suffix: str) -> bytes:
    buffer = io.BytesIO()
    color = level if mode == "L" else (level, level, level)
    kind = {".png": "png", ".bmp": "bmp"}.get(suffix, "jpeg")
    Image.new(mode, size, color).save(buffer, kind, quality=100)
    return buffer.getvalue()


def write_tree(root: Path, names: Iterable[str], size: tuple[int, int] = (4, 4)) -> None:
    """Write an image under each name, their gray levels 0, 1, 2, ... in that order."""
    for level, name in enumerate(names):
        write_image(root / name, level, size)


def write_text(path: Path, text: str) -> None:
    """Write a text file, and the folders that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def levels(database: Database, split: str = "all") -> list[int]:
    """Return the gray level of each image of a split, all of whose pixels must have it."""
    images = database.splits[split].images.flatten(1)
    assert torch.equal(images, images[:, :1].expand_as(images))
    return images[:, 0].tolist()


def class_names(database: Database, split: str = "all") -> list[str]:
    """Return the name of each face's class."""
    return [database.classes[label] for label in database.splits[split].labels]


def write_ck48(root: Path, side: int = 48) -> Path:
    """Write the folder CK+48 with the real numbers of the 48 x 48 dump of CK+, and return `root`.

    Everyone shows two or three expressions.
    """
    dealt = [name for name, clips in CK48_CLIPS.items() for _ in range(clips)]
    for number, name in enumerate(dealt):
        person, sequence = number % CK48_PEOPLE + 1, number // CK48_PEOPLE + 1
        last = 10 + number % 50
        for frame in range(last - 2, last + 1):
            path = root / "CK+48" / name / f"S{person:03}_{sequence:03}_{frame:08}.png"
            write_image(path, (37 * number + frame) % 256, (side, side))
    return root
