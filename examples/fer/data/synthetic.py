"""Faces drawn from action units: a database that needs no download."""

from numbers import Integral

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import trange

from fer.data.action_units import EXPRESSIONS, UNIT_NAMES, sample_units
from fer.data.drawing.face import draw_face
from fer.data.drawing.light import photograph, sample_light
from fer.data.drawing.person import sample_person
from fer.data.drawing.setting import sample_setting
from fer.data.drawing.view import sample_view
from fer.data.faces import Database, FaceSet

MIN_SIZE = 24
_SPLITS = ("train", "test")


def draw_synthetic_faces(
    train: int = 2560, test: int = 1024, *, size: int = 72, seed: int = 0, progress: bool = False
) -> Database:
    """Draw a database of RGB faces with the seven expressions of RAF-DB and their action units.

    Every face has its own identity, pose, light and setting. Face i of a split depends only on
    (`seed`, split, i), not on the number of faces, and its class is i modulo 7. Other versions
    of NumPy or Pillow may give different pixels.

    Args:
        train: the number of faces to train on.
        test: the number of faces to test on.
        size: the width and height in pixels, at least 24.
        seed: the seed of the random faces.
        progress: show a progress bar for each split.

    Raises:
        TypeError: an argument is not an integer.
        ValueError: a count or the seed is negative, or the size is too small to show a face.
    """
    _check_integer("train", train, 0)
    _check_integer("test", test, 0)
    _check_integer("size", size, MIN_SIZE)
    _check_integer("seed", seed, 0)
    counts = dict(zip(_SPLITS, (train, test), strict=True))
    return Database(
        name="synthetic",
        classes=EXPRESSIONS,
        splits={
            split: _draw_split(split, count, size, seed, progress)
            for split, count in counts.items()
        },
        units=UNIT_NAMES,
    )


def _check_integer(name: str, value: int, minimum: int) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}: {value!r}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")


def _draw_split(split: str, count: int, size: int, seed: int, progress: bool) -> FaceSet:
    images = np.empty((count, size, size, 3), dtype=np.uint8)
    units = np.empty((count, len(UNIT_NAMES)), dtype=np.float32)
    for index in trange(count, desc=f"drawing {split}", unit="face", disable=not progress):
        key = np.random.SeedSequence(seed, spawn_key=(_SPLITS.index(split), index))
        rng = np.random.Generator(np.random.PCG64(key))
        images[index], units[index] = _draw_sample(rng, EXPRESSIONS[index % len(EXPRESSIONS)], size)
    return FaceSet(
        images=torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
        labels=torch.arange(count) % len(EXPRESSIONS),
        names=tuple(f"{split}_{index:05d}" for index in range(count)),
        units=torch.from_numpy(units),
    )


def _draw_sample(
    rng: np.random.Generator, expression: str, size: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    units = sample_units(rng, expression)
    person, view, setting = sample_person(rng), sample_view(rng), sample_setting(rng)
    picture = draw_face(person, units, view, setting, size)
    intensities = np.array(list(units.values()), dtype=np.float32)
    return photograph(picture, sample_light(rng), rng), intensities
