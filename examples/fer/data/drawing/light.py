"""Simulate the light and the camera that change a picture of a face."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter


@dataclass(frozen=True)
class Light:
    """The light and camera parameters of a picture; the defaults do not change it."""

    brightness: float = 1.0
    contrast: float = 1.0
    slope: float = 0.0  # how much brighter one edge of the picture is than its middle
    angle: float = 0.0  # of that edge, in radians
    warmth: float = 0.0  # positive: redder and less blue
    blur: float = 0.0  # radius, as a share of the picture's width
    noise: float = 0.0  # standard deviation, in gray values


def sample_light(rng: np.random.Generator) -> Light:
    """Draw random light and camera parameters."""
    return Light(
        brightness=rng.uniform(0.65, 1.15),
        contrast=rng.uniform(0.75, 1.15),
        slope=rng.uniform(0.0, 0.35),
        angle=rng.uniform(0.0, 2.0 * np.pi),
        warmth=rng.uniform(-0.1, 0.1),
        blur=rng.uniform(0.0, 0.008),
        noise=rng.uniform(0.5, 5.0),
    )


def photograph(picture: Image.Image, light: Light, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the picture (H, W, 3) as a camera records it; the noise comes from `rng`."""
    if light.blur > 0:
        picture = picture.filter(ImageFilter.BoxBlur(light.blur * picture.width))
    pixels = np.asarray(picture, dtype=np.float32)
    right, down = _axes(picture.width, picture.height)
    ramp = np.float32(np.cos(light.angle)) * right + np.float32(np.sin(light.angle)) * down
    gain = light.brightness * (1.0 + light.slope * ramp)
    tint = np.array([1.0 + light.warmth, 1.0, 1.0 - light.warmth], dtype=np.float32)
    lit = (128.0 + light.contrast * (pixels - 128.0)) * gain[..., None] * tint
    grain = rng.standard_normal(pixels.shape[:2], dtype=np.float32)
    return np.clip(np.rint(lit + light.noise * grain[..., None]), 0, 255).astype(np.uint8)


@cache
def _axes(width: int, height: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    right = np.linspace(-1.0, 1.0, width, dtype=np.float32)
    return right, np.linspace(-1.0, 1.0, height, dtype=np.float32)[:, None]
