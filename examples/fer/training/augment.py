"""Convert cached uint8 faces to network inputs on the training device.

Section 4.2 of the paper: resize to 256 x 256, crop 224 x 224 at random and flip in training, crop
the center in evaluation. Other sizes keep that ratio. "strong" also rotates, scales and shifts,
changes brightness and contrast, and hides a rectangle, as is common in training from scratch.

The augmentation of a sample is a row of random numbers, which are drawn first for the joint batch
of all processes. A face thus looks the same on every device, process and part of a batch.
"""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Augment = Literal["paper", "strong"]

RESIZED_TO_CROPPED = 256 / 224

ANGLE = math.radians(15)
SCALES = (0.8, 1.2)
SHIFT = 0.08
"""Maximum shift, as a share of the resized width; the paper's random crop shifts about as much."""
CONTRASTS = (0.7, 1.3)
BRIGHTNESS = 0.2
"""Maximum change of brightness of pixels in [0, 1]; pixels in [-1, 1] change twice as much."""
ERASED_SHARES = (0.02, 0.2)
"""Range of the rectangle's share of the crop, in half of the faces."""


def _resize(images: Tensor, crop: int) -> Tensor:
    size = round(crop * RESIZED_TO_CROPPED)
    # The paper gives no normalization; its first author's earlier code uses 0.5 and 0.5.
    scaled = images.float().div_(127.5).sub_(1)
    return F.interpolate(scaled, (size, size), mode="bilinear", antialias=True)


def draw_augmentations(
    count: int, crop: int, generator: torch.Generator, augment: Augment = "paper"
) -> Tensor:
    """Draw a row for each of `count` samples: (top, left, flip), or thirteen for "strong"."""
    if augment == "strong":
        return torch.rand(count, 13, generator=generator)
    margin = round(crop * RESIZED_TO_CROPPED) - crop
    places = torch.randint(0, margin + 1, (count, 2), generator=generator)
    flips = torch.randint(0, 2, (count, 1), generator=generator)
    return torch.cat([places, flips], dim=1)


def augment_for_training(
    images: Tensor, drawn: Tensor, crop: int, augment: Augment = "paper"
) -> Tensor:
    """Return float faces (N, 3, crop, crop), each augmented according to its row of `drawn`."""
    resized, drawn = _resize(images, crop), drawn.to(images.device)
    if augment == "strong":
        made = _erase(_jitter(_warp(resized, drawn[:, :5], crop), drawn[:, 5:7]), drawn[:, 7:])
    else:
        top, left, flip = drawn.unbind(1)
        made = _crop(resized, top, left, flip.bool(), crop)
    return made.expand(-1, 3, -1, -1)


def crop_for_evaluation(images: Tensor, crop: int) -> Tensor:
    """Return float faces (N, 3, crop, crop), cropped at the center."""
    resized = _resize(images, crop)
    start = (resized.shape[-1] - crop) // 2
    return resized[..., start : start + crop, start : start + crop].expand(-1, 3, -1, -1)


def _crop(images: Tensor, top: Tensor, left: Tensor, flip: Tensor, crop: int) -> Tensor:
    steps = torch.arange(crop, device=images.device)
    rows = top[:, None] + steps
    columns = left[:, None] + torch.where(flip[:, None], crop - 1 - steps, steps)
    sample = torch.arange(len(images), device=images.device)[:, None, None]
    picked = images.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)


def _warp(images: Tensor, drawn: Tensor, crop: int) -> Tensor:
    """Rotate, scale, shift and flip in one resampling, which repeats the edge outside."""
    turn, scale, right, down, flip = drawn.unbind(1)
    angle = ANGLE * (2 * turn - 1)
    # The grid maps the crop to the resized face, so a scale above 1 covers less of the face.
    scale = 1 / (_interpolate(SCALES, scale) * RESIZED_TO_CROPPED)
    shift = 2 * SHIFT * torch.stack([2 * right - 1, 2 * down - 1], 1)
    mirror = torch.where(flip < 0.5, -1.0, 1.0)
    cosine, sine = angle.cos() * scale, angle.sin() * scale
    turned = torch.stack([cosine * mirror, -sine, sine * mirror, cosine], 1).view(-1, 2, 2)
    theta = torch.cat([turned, shift.unsqueeze(2)], 2)
    grid = F.affine_grid(theta, [len(images), 1, crop, crop], align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _jitter(images: Tensor, drawn: Tensor) -> Tensor:
    contrast, brightness = drawn[:, :, None, None].unbind(1)
    changed = images * _interpolate(CONTRASTS, contrast)[:, None]
    return (changed + 2 * BRIGHTNESS * (2 * brightness[:, None] - 1)).clamp_(-1, 1)


def _erase(images: Tensor, drawn: Tensor) -> Tensor:
    """Hide a rectangle of uniform gray in half of the faces."""
    share, ratio, down, right, whether, gray = drawn.unbind(1)
    crop = images.shape[-1]
    area = _interpolate(ERASED_SHARES, share) * (whether < 0.5)
    # The height is from half to twice the width.
    stretch = 2 ** (ratio - 0.5)
    height, width = area.sqrt() * stretch * crop, area.sqrt() / stretch * crop
    pixels = torch.arange(crop, device=images.device) + 0.5
    rows = _is_inside(pixels, down * (crop - height), height)
    columns = _is_inside(pixels, right * (crop - width), width)
    inside = (rows[:, :, None] & columns[:, None, :]).unsqueeze(1)
    return torch.where(inside, (2 * gray - 1)[:, None, None, None], images)


def _is_inside(pixels: Tensor, start: Tensor, length: Tensor) -> Tensor:
    return (pixels >= start[:, None]) & (pixels < (start + length)[:, None])


def _interpolate(bounds: tuple[float, float], drawn: Tensor) -> Tensor:
    low, high = bounds
    return low + (high - low) * drawn
