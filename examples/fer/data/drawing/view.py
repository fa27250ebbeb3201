"""The pose and framing of the head, and the projection from the face to the picture.

Face coordinates have their origin at the middle of the face, on the bridge of the nose. x points
right, y points down, and 1 is half the width of the face. Points lie on the front of an ellipsoid,
so that a turn of the head moves the features but not the outline.
"""

from dataclasses import dataclass

import numpy as np

from fer.data.drawing.curves import Points

_HALF_WIDTH = 0.345  # of the face, as a share of the picture's width
_DEPTH = 0.95
_CENTER = 0.05  # of the head, below the origin
_SPREADS = np.array([0.08, 0.13, 0.09, 0.06, 0.025, 0.025, 0.02])  # in the order of View's fields


@dataclass(frozen=True)
class View:
    """Pose and framing: angles in radians, shifts as shares of the picture's width."""

    roll: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
    zoom: float = 1.0
    shift_x: float = 0.0
    shift_y: float = 0.0
    gaze: float = 0.0  # how far the irises look to the right, in face coordinates

    def project(self, points: Points, width: int) -> Points:
        """Return the pixels of points of the face in a square picture `width` pixels wide."""
        x, y = points.T
        round_off = 1.0 - (x / 1.05) ** 2 - ((y - _CENTER) / 1.45) ** 2
        depth = _DEPTH * np.sqrt(np.maximum(0.0, round_off))
        x = x * np.cos(self.yaw) + depth * np.sin(self.yaw)
        y = y * np.cos(self.pitch) + depth * np.sin(self.pitch)
        cos, sin = np.cos(self.roll), np.sin(self.roll)
        turned = np.stack([x * cos - y * sin, x * sin + y * cos], axis=1)
        middle = (width * (0.5 + self.shift_x), width * (0.5 + self.shift_y))
        return np.asarray(turned * (_HALF_WIDTH * self.zoom * width) + middle)


def sample_view(rng: np.random.Generator) -> View:
    """Draw a random pose close to frontal, as in a picture cropped by a face detector."""
    spread = np.clip(rng.standard_normal(7), -2.2, 2.2)
    roll, yaw, pitch, zoom, right, down, gaze = spread * _SPREADS
    return View(roll, yaw, pitch, 1.0 + zoom, right, down, gaze)
