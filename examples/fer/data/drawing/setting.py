"""Draw the surroundings of a face and the objects in front of it."""

from dataclasses import dataclass

import numpy as np

from fer.data.drawing.color import BLACK, WHITE, Color, mix
from fer.data.drawing.curves import CIRCLE, bezier, ellipse
from fer.data.drawing.person import Person
from fer.data.drawing.scene import Scene

_SHIRT = np.array(
    [(-1.7, 2.4), (-1.4, 1.62), (-0.5, 1.46), (0.0, 1.72), (0.5, 1.46), (1.4, 1.62), (1.7, 2.4)]
)
_LENS = np.sign(CIRCLE) * np.abs(CIRCLE) ** 0.75 * (0.31, 0.23)


@dataclass(frozen=True)
class Setting:
    """The background, the clothes and the optional position of a hand in front of the face."""

    background: Color = (200, 205, 210)
    patch: Color = (200, 205, 210)  # the color of a second, round part of the background
    patch_x: float = 1.2
    shirt: Color = (88, 110, 138)
    hand: tuple[float, float] | None = None  # where the fingertips are


def sample_setting(rng: np.random.Generator) -> Setting:
    """Draw a random setting; one in sixteen has a hand that covers a cheek or the chin."""
    side = -1.0 if rng.random() < 0.5 else 1.0
    tips = (side * rng.uniform(0.3, 0.9), rng.uniform(0.3, 0.9))
    return Setting(
        background=_sample_color(rng),
        patch=_sample_color(rng),
        patch_x=rng.uniform(-1.5, 1.5),
        shirt=_sample_color(rng),
        hand=tips if rng.random() < 1 / 16 else None,
    )


def _sample_color(rng: np.random.Generator) -> Color:
    """Draw a color near a random gray, so that strong colors are rare."""
    red, green, blue = (rng.integers(60, 210) + rng.integers(-45, 45, 3)).tolist()
    return red, green, blue


def draw_backdrop(scene: Scene, setting: Setting) -> None:
    """Add the background behind the head."""
    scene.add("back", ellipse(setting.patch_x, -0.4, 0.9, 1.6), setting.patch)


def draw_shirt(scene: Scene, setting: Setting) -> None:
    """Add the clothes, in front of neck and hair."""
    scene.add("back", _SHIRT, setting.shirt)


def draw_glasses(scene: Scene, person: Person) -> None:
    """Add glasses to a person who wears them."""
    if person.glasses is None:
        return
    x, y, color = person.eye_x + 0.02, person.eye_y + 0.03, person.glasses
    rim = _LENS + np.array([x, y])
    scene.add("front", rim, WHITE, 0.08, both=True)
    scene.brush("front", np.concatenate([rim, rim[:2]]), 0.04, color, ends=(1.0, 1.0), both=True)
    arm = bezier((x + 0.3, y - 0.06), (1.0, y - 0.1))
    scene.brush("front", arm, 0.04, color, ends=(1.0, 1.0), both=True)
    bridge = bezier((0.3 - x, y - 0.04), (0.0, y - 0.12), (x - 0.3, y - 0.04))
    scene.brush("front", bridge, 0.04, color, ends=(1.0, 1.0))


def draw_hand(scene: Scene, person: Person, setting: Setting) -> None:
    """Add the fingers of a hand that points up from below."""
    if setting.hand is None:
        return
    x, y = setting.hand
    back = mix(person.skin, person.shadow, 0.2)
    for finger, shorter in enumerate((0.12, 0.0, 0.03, 0.14)):
        left = x + 0.17 * (finger - 1.5)
        line = bezier((left, y + shorter), (left, y + 0.5), (1.15 * left, 2.4), count=10)
        for width, color in ((0.2, mix(person.shadow, BLACK, 0.1)), (0.16, back)):
            scene.brush("front", line, width, color, ends=(0.8, 1.2))
