"""Face detectors: the protocol and an adapter for an optional package."""

import importlib
from typing import Any, Protocol

import torch
from PIL import Image

MIN_PROBABILITY = 0.9
"""Faces that MTCNN detects with a lower probability come last, regardless of their size."""

MISSING_PACKAGE = """\
--detector mtcnn needs facenet-pytorch, whose wheel holds its weights. It asks for an older torch
than it needs, so install it without what it asks for:
    pip install --no-deps facenet-pytorch && pip install requests"""


class Detector(Protocol):
    """The protocol of face detectors: any object with this method."""

    def detect(self, image: Image.Image) -> Any:
        """Return points (faces, points, 2) of an RGB picture, starting with the face to use.

        The first two points of a face are its eyes, left and right as seen in the picture, in
        pixels, x before y. None or an empty result means that there are no faces.
        """
        ...


class MTCNN:
    """The detector of facenet-pytorch (Zhang et al. 2016), with the weights in its wheel."""

    def __init__(self, device: str = "cpu") -> None:
        try:
            package = importlib.import_module("facenet_pytorch")
        except ImportError as error:
            raise ValueError(f"{MISSING_PACKAGE}\n({error})") from error
        self.network = package.MTCNN(keep_all=True, device=torch.device(device))

    def detect(self, image: Image.Image) -> Any:
        """Return five points of each face, faces of high probability first, the largest first."""
        boxes, chances, points = self.network.detect(image, landmarks=True)
        if boxes is None:
            return None
        areas = [float((x2 - x1) * (y2 - y1)) for x1, y1, x2, y2 in boxes]
        order = sorted(
            range(len(boxes)), key=lambda i: (chances[i] >= MIN_PROBABILITY, areas[i]), reverse=True
        )
        return [points[i].tolist() for i in order]


def make_detector(name: str, device: str = "cpu") -> Detector:
    """Return the detector "mtcnn", or the object that MODULE:NAME() creates.

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
