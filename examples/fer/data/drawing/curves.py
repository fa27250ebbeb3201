"""Points along curves, and the polygons that give a curve its width."""

from functools import cache
from math import comb

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

_TURN = np.linspace(0.0, 2.0 * np.pi, 24, endpoint=False)
CIRCLE: Points = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)


@cache
def _bernstein(degree: int, count: int) -> Points:
    t = np.linspace(0.0, 1.0, count)[:, None]
    k = np.arange(degree + 1)
    choose = np.array([comb(degree, int(i)) for i in k])
    return np.asarray(choose * t**k * (1.0 - t) ** (degree - k))


@cache
def _taper(count: int, start: float, end: float) -> Points:
    t = np.linspace(-1.0, 1.0, count)
    ends = np.where(t < 0, start, end)
    return np.asarray(0.5 * (ends + (1.0 - ends) * (1.0 - t**2)))


def bezier(*controls: tuple[float, float], count: int = 8) -> Points:
    """Return `count` points of the Bezier curve with the given control points."""
    return np.asarray(_bernstein(len(controls) - 1, count) @ np.array(controls))


def ellipse(x: float, y: float, rx: float, ry: float) -> Points:
    """Return the outline of an upright ellipse around (x, y)."""
    return CIRCLE * (rx, ry) + (x, y)


def stroke(line: Points, width: float, start: float = 0.0, end: float = 0.0) -> Points:
    """Return the outline of a brush stroke.

    Args:
        line: (n, 2), the middle of the stroke.
        width: the full width halfway along the line.
        start: the width at the first point, as a share of `width`.
        end: the width at the last point, as a share of `width`.
    """
    # With complex numbers, a quarter turn is a product, and one pass handles both x and y.
    middle = np.ascontiguousarray(line).view(np.complex128)[:, 0]
    along = np.empty_like(middle)
    along[1:-1] = middle[2:] - middle[:-2]
    along[0], along[-1] = middle[1] - middle[0], middle[-1] - middle[-2]
    offset = along / (np.abs(along) + 1e-9) * (1j * width * _taper(len(line), start, end))
    rim = np.concatenate([middle + offset, (middle - offset)[::-1]])
    return rim.view(np.float64).reshape(-1, 2)
