"""Detectors of faces: the one protocol, and the packages that follow it; none is needed here."""

import importlib
from typing import Any, Protocol

import torch
from PIL import Image

SURE = 0.9
"""Faces of which MTCNN is less sure come last, however large."""

MISSING = """\
--detector mtcnn needs facenet-pytorch, whose wheel holds its weights. It asks for an older torch
than it needs, so install it without what it asks for:
    pip install --no-deps facenet-pytorch && pip install requests"""


class Detector(Protocol):
    """What finds faces; any object that has this method will do."""

    def detect(self, image: Image.Image) -> Any:
        """Return points (faces, points, 2) of an RGB picture, the face to take first.

        The first two points of a face are its eyes: left and right as seen in the picture, in
        pixels, x before y. None, or no faces, says that there are none.
        """
        ...


class MTCNN:
    """The detector of facenet-pytorch (Zhang et al. 2016), with the weights in its wheel."""

    def __init__(self, device: str = "cpu") -> None:
        try:
            package = importlib.import_module("facenet_pytorch")
        except ImportError as error:
            raise ValueError(f"{MISSING}\n({error})") from error
        self.network = package.MTCNN(keep_all=True, device=torch.device(device))

    def detect(self, image: Image.Image) -> Any:
        """Return five points of each face: the largest of those it is sure of first."""
        boxes, chances, points = self.network.detect(image, landmarks=True)
        if boxes is None:
            return None
        areas = [float((x2 - x1) * (y2 - y1)) for x1, y1, x2, y2 in boxes]
        order = sorted(
            range(len(boxes)), key=lambda i: (chances[i] >= SURE, areas[i]), reverse=True
        )
        return [points[i].tolist() for i in order]


def make_detector(name: str, device: str = "cpu") -> Detector:
    """Return the detector "mtcnn", or what MODULE:NAME makes when it is called without arguments.

    Raises:
        ValueError: there is no such detector, or a package is missing.
    """
    if name == "mtcnn":
        return MTCNN(device)
    module, _, attribute = name.partition(":")
    if not (module and attribute):
        raise ValueError(f"--detector must be mtcnn or MODULE:NAME, got {name}")
    try:
        made = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError) as error:
        raise ValueError(f"--detector {name}: {error}") from error
    if not callable(getattr(made, "detect", None)):
        raise ValueError(f"--detector {name} makes something without a method detect")
    detector: Detector = made
    return detector
