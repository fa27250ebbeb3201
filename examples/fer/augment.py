"""From cached uint8 faces to network input, on the device that trains.

Section 4.2 of the paper: resize to 256 x 256, crop 224 x 224 at random and flip in training, crop
the center in evaluation. Other sizes keep that ratio.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

RESIZED_TO_CROPPED = 256 / 224


def _resized(images: Tensor, crop: int) -> Tensor:
    size = round(crop * RESIZED_TO_CROPPED)
    # The paper gives no normalization; 0.5 and 0.5 are what its first author's earlier code uses.
    scaled = images.float().div_(127.5).sub_(1)
    return F.interpolate(scaled, (size, size), mode="bilinear", antialias=True)


def _cropped(images: Tensor, top: Tensor, left: Tensor, flip: Tensor, crop: int) -> Tensor:
    steps = torch.arange(crop, device=images.device)
    rows = top[:, None] + steps
    columns = left[:, None] + torch.where(flip[:, None], crop - 1 - steps, steps)
    sample = torch.arange(len(images), device=images.device)[:, None, None]
    picked = images.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)


def draw(count: int, crop: int, generator: torch.Generator) -> Tensor:
    """Draw a row (top, left, flip) for each of `count` samples."""
    margin = round(crop * RESIZED_TO_CROPPED) - crop
    places = torch.randint(0, margin + 1, (count, 2), generator=generator)
    flips = torch.randint(0, 2, (count, 1), generator=generator)
    return torch.cat([places, flips], dim=1)


def for_training(images: Tensor, drawn: Tensor, crop: int) -> Tensor:
    """Return float faces (N, 3, crop, crop), each cropped and flipped as `drawn` says."""
    top, left, flip = drawn.to(images.device).unbind(1)
    return _cropped(_resized(images, crop), top, left, flip.bool(), crop).expand(-1, 3, -1, -1)


def for_evaluation(images: Tensor, crop: int) -> Tensor:
    """Return float faces (N, 3, crop, crop), cropped at the center."""
    resized = _resized(images, crop)
    start = (resized.shape[-1] - crop) // 2
    return resized[..., start : start + crop, start : start + crop].expand(-1, 3, -1, -1)
