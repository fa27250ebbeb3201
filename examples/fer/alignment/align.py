"""Rotate, scale and crop faces such that their eyes have fixed positions in the crop."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

EYE_DISTANCE = 1 / 3
EYE_HEIGHT = 3 / 8
"""Eye positions as shares of the crop. The paper gives none; these just include the chin."""

Padding = Literal["border", "zeros", "reflection"]


def align_by_eyes(
    images: Tensor,
    left: Tensor,
    right: Tensor,
    size: int = 256,
    *,
    eye_distance: float = EYE_DISTANCE,
    eye_height: float = EYE_HEIGHT,
    padding_mode: Padding = "border",
) -> Tensor:
    r"""Crop faces according to their eye positions, as in section 4.2 of the paper.

    With points as complex numbers, the similarity transform that maps the crop's eyes
    :math:`l', r'` to the picture's eyes :math:`l, r` is :math:`z = l + a (w - l')` with
    :math:`a = (r - l) / (r' - l')`. The crop's pixel :math:`w` is interpolated at :math:`z` from
    the four pixels around it. If the picture shrinks, :math:`|a| > 1`, it is the mean of
    :math:`\lceil |a| \rceil^2` such samples, spread evenly over the pixel, to prevent aliasing.

    Points are in pixels, x before y, and the center of the first pixel is (0, 0). Left and right
    refer to the picture, so the left eye is the person's right eye.

    Args:
        images: uint8 or floating, (C, H, W), or (N, C, H, W) for N faces.
        left: the position of the left eye, (2,), or (N, 2).
        right: the position of the right eye, likewise.
        size: the width and height of the crop. The paper: 256.
        eye_distance: the distance of the eyes in the crop, as a share of `size`, in (0, 1).
        eye_height: their distance from the upper edge, as a share of `size`, in (0, 1).
        padding_mode: the pixels outside the picture, as in `torch.nn.functional.grid_sample`:
            its edge is repeated ("border"), they are 0 ("zeros"), or mirrored ("reflection").

    Returns:
        The crops, (C, size, size) or (N, C, size, size), in the type of `images`.

    Raises:
        TypeError: `images` is neither uint8 nor floating.
        ValueError: a shape is wrong, a point is not finite, the eyes of a face coincide, or an
            argument is out of its range.

    Example:
        >>> face = torch.arange(256.0).expand(1, 256, 256)
        >>> left, right = eye_positions(256)
        >>> torch.allclose(align_by_eyes(face, left, right), face, atol=1e-3)
        True
    """
    target = eye_positions(size, eye_distance, eye_height)
    _check(images, left, right)
    if images.ndim == 3:
        options = {"eye_distance": eye_distance, "eye_height": eye_height}
        crops = align_by_eyes(
            images[None], left[None], right[None], size, padding_mode=padding_mode, **options
        )
        return crops[0]
    start, stop = (torch.view_as_complex(each.double().contiguous()) for each in (left, right))
    turn = (stop - start) / (target[1, 0] - target[0, 0])
    if not (turn.abs() > 0).all():
        raise ValueError("left and right must not coincide")
    start, turn = start.to(images.device), turn.to(images.device)
    axis = torch.arange(size, dtype=torch.float64, device=images.device)
    crop = torch.complex(*torch.meshgrid(axis - target[0, 0], axis - target[0, 1], indexing="xy"))
    # With an unchanged scale, one sample per pixel is enough, although rounding may give 1.0000001.
    counts = torch.ceil(turn.abs() - 0.01).clamp(min=1).int()
    crops = images.new_empty((len(images), images.shape[1], size, size))
    for count in counts.unique().tolist():
        chosen = counts == count
        where = start[chosen, None, None], turn[chosen, None, None]
        crops[chosen] = _read(images[chosen], *where, crop, count, padding_mode)
    return crops


def eye_positions(
    size: int, eye_distance: float = EYE_DISTANCE, eye_height: float = EYE_HEIGHT
) -> Tensor:
    """Return the positions of the left and right eye in a crop: pixels (2, 2), x before y."""
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    for name, share in (("eye_distance", eye_distance), ("eye_height", eye_height)):
        if not 0 < share < 1:
            raise ValueError(f"{name} must be in (0, 1), got {share}")
    xs = (0.5 - eye_distance / 2, 0.5 + eye_distance / 2)
    # Shares are measured from the crop's edge, pixel coordinates from the first pixel's center.
    return torch.tensor([(x * size - 0.5, eye_height * size - 0.5) for x in xs]).double()


def _read(
    images: Tensor, start: Tensor, turn: Tensor, crop: Tensor, count: int, padding_mode: Padding
) -> Tensor:
    """Return the mean of `count` x `count` samples within each pixel of the crop."""
    precise = images if images.dtype == torch.float64 else images.float()
    height, width = images.shape[-2:]
    total = torch.zeros((), dtype=precise.dtype, device=images.device)
    shifts = [(step + 0.5) / count - 0.5 for step in range(count)]
    for shift in (complex(x, y) for x in shifts for y in shifts):
        point = start + turn * (crop + shift)
        grid = torch.stack([(2 * point.real + 1) / width, (2 * point.imag + 1) / height], -1) - 1
        total = total + F.grid_sample(
            precise, grid.to(precise.dtype), padding_mode=padding_mode, align_corners=False
        )
    mean = total / count**2
    return mean.round().to(images.dtype) if images.dtype == torch.uint8 else mean.to(images.dtype)


def _check(images: Tensor, left: Tensor, right: Tensor) -> None:
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise TypeError(f"images must be uint8 or floating, got {images.dtype}")
    if images.ndim not in (3, 4):
        shape = tuple(images.shape)
        raise ValueError(f"images must be (C, H, W) or (N, C, H, W), got {shape}")
    expected = (*images.shape[:-3], 2)
    for name, points in (("left", left), ("right", right)):
        if points.shape != expected:
            raise ValueError(f"{name} must be {expected}, got {tuple(points.shape)}")
        if not all(map(math.isfinite, points.flatten().tolist())):
            raise ValueError(f"{name} must be finite, got {points.tolist()}")
