"""Find the eyes in pictures according to the command line, and crop the faces accordingly."""

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from fer.alignment.align import EYE_DISTANCE, EYE_HEIGHT, align_by_eyes, eye_positions
from fer.alignment.detect import make_detector
from fer.alignment.landmarks import find_eyes, read_landmarks
from fer.report.pictures import as_tensor

FindEyes = Callable[[str, Image.Image], tuple[Tensor, int]]
"""Function of a picture's name and the picture that returns eyes (2, 2) and a number of faces.

It raises `ValueError` with the reason if it finds no eyes.
"""


def find_by_landmarks(path: Path) -> FindEyes:
    """Return a function that looks eyes up in a file or folder of landmarks."""
    known = read_landmarks(path)

    def find(name: str, picture: Image.Image) -> tuple[Tensor, int]:
        eyes = find_eyes(known, name)
        if eyes is None:
            raise ValueError(f"{path} does not name it")
        return _check_eyes(eyes, picture), 1

    return find


def find_by_detector(name: str, device: str = "cpu") -> FindEyes:
    """Return a function that calls a detector and uses the first face that it returns."""
    detector = make_detector(name, device)

    def find(_: str, picture: Image.Image) -> tuple[Tensor, int]:
        try:
            faces = detector.detect(picture.convert("RGB"))
        except Exception as error:  # A failed picture must not stop the others.
            raise ValueError(f"the detector {name} failed: {error}") from error
        if faces is None or len(faces) == 0:
            raise ValueError("no face found")
        points = torch.as_tensor(faces, dtype=torch.float64)
        if points.ndim != 3 or points.shape[1] < 2 or points.shape[2] != 2:
            raise ValueError(
                f"the detector {name} must give points (faces, 2 or more, 2), "
                f"got {tuple(points.shape)}"
            )
        return _check_eyes(points[0, :2], picture), len(points)

    return find


def _check_eyes(eyes: Tensor, picture: Image.Image) -> Tensor:
    """Return the eyes; raise `ValueError` if they cannot be those of a face in the picture."""
    (x1, y1), (x2, y2) = eyes.tolist()
    for name, x, y in (("left", x1, y1), ("right", x2, y2)):
        if not (-0.5 <= x <= picture.width - 0.5 and -0.5 <= y <= picture.height - 0.5):
            raise ValueError(
                f"the {name} eye ({x:g}, {y:g}) lies outside the picture of "
                f"{picture.width} x {picture.height}"
            )
    if x1 > x2:
        raise ValueError("the left eye lies right of the right one; sides are the picture's")
    if (x1, y1) == (x2, y2):
        raise ValueError(f"both eyes are at ({x1:g}, {y1:g})")
    return eyes


@dataclass(frozen=True)
class Crop:
    """The parameters of a crop for given eyes; see `align_by_eyes`."""

    size: int = 256
    eye_distance: float = EYE_DISTANCE
    eye_height: float = EYE_HEIGHT

    def __post_init__(self) -> None:
        eye_positions(self.size, self.eye_distance, self.eye_height)

    def __call__(self, picture: Image.Image, eyes: Tensor) -> Tensor:
        """Return the face as uint8 (1, size, size) or (3, size, size)."""
        return align_by_eyes(as_tensor(picture), eyes[0], eyes[1], **asdict(self))


def add_options(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Add the options for the eyes' positions in the picture and in the crop."""
    found = parser.add_mutually_exclusive_group(required=required)
    found.add_argument(
        "--landmarks", type=Path, metavar="FILE",
        help="CSV of name,left_x,left_y,right_x,right_y; or RAF-DB's folder Annotation/manual",
    )  # fmt: skip
    found.add_argument(
        "--detector", metavar="NAME",
        help="mtcnn (facenet-pytorch), or MODULE:NAME of a class with a method detect(image)",
    )  # fmt: skip
    parser.add_argument(
        "--eye-distance", type=float, default=EYE_DISTANCE, metavar="SHARE",
        help="of the crop's width, between the eyes; default 1/3",
    )  # fmt: skip
    parser.add_argument(
        "--eye-height", type=float, default=EYE_HEIGHT, metavar="SHARE",
        help="of the crop's height, from its upper edge to the eyes; default 3/8",
    )  # fmt: skip
    parser.add_argument(
        "--device", type=_device, metavar="NAME",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="of the networks; by default a GPU if there is one",
    )  # fmt: skip


def _device(name: str) -> str:
    try:
        torch.empty(0, device=name)
    except (AssertionError, RuntimeError) as error:
        raise argparse.ArgumentTypeError(f"{name} cannot be used: {error}") from error
    return name


def make_eye_finder(given: argparse.Namespace) -> FindEyes | None:
    """Return the function that finds eyes as the options specify, or None if they do not."""
    if given.landmarks is not None:
        return find_by_landmarks(given.landmarks)
    return None if given.detector is None else find_by_detector(given.detector, given.device)
