"""Draw the mouth and the effects of the units of the lower face: AU12, 15, 20, 25 and 26."""

from dataclasses import dataclass, field

import numpy as np

from fer.data.action_units import Units
from fer.data.drawing.color import WHITE, Color, mix
from fer.data.drawing.curves import Points, bezier, ellipse
from fer.data.drawing.person import Person
from fer.data.drawing.scene import Scene

_T = np.linspace(-1.0, 1.0, 21)  # from the left to the right corner
_FLAT = 1.0 - np.abs(_T) ** 2.6
_ROUND = (1.0 - _T**2) ** 0.7
_BOW = _ROUND * (1.0 - 0.3 * np.exp(-((_T / 0.16) ** 2)))
_BEND = np.abs(_T) ** 1.8


@dataclass(frozen=True)
class Lips:
    """The edges of the lips from the left to the right corner, and the gap between them."""

    top: Points
    upper: Points
    lower: Points
    bottom: Points
    gap: float = field(kw_only=True)


def shape_lips(person: Person, units: Units) -> Lips:
    """Return the edges of the lips."""
    gap = 0.13 * units[25] * (1.0 - 0.3 * units[26]) + 0.36 * units[26]
    stretch = 0.22 * units[12] + 0.04 * units[15] + 0.34 * units[20] - 0.16 * units[26]
    sag = person.mouth_sag - 0.17 * units[12] + 0.15 * units[15] + 0.03 * units[20]
    sag += 0.12 * units[26]  # the corners partly follow the jaw
    y = person.mouth_y - 0.05 * units[9] - 0.02 * units[12]
    lift = 0.2 * gap * _FLAT + (0.07 * units[9] + 0.03 * units[15]) * _ROUND
    upper = y - lift + sag * _BEND
    lower = upper + gap * _FLAT
    thin = 1.0 - 0.2 * units[12] - 0.35 * units[20]
    top = upper - person.lip_upper * thin * _BOW
    bottom = lower + person.lip_lower * thin * (1.0 + 0.15 * units[15]) * _ROUND
    x = person.mouth_width * (1.0 + stretch) * _T
    edges = (np.stack([x, edge], axis=1) for edge in (top, upper, lower, bottom))
    return Lips(*edges, gap=gap)


def draw_mouth(scene: Scene, person: Person, units: Units) -> None:
    """Add the lips, the visible inside of the mouth and the folds at the corners."""
    lips = shape_lips(person, units)
    red = mix(person.skin, (176, 40, 48), person.lip_red)
    under = ellipse(0.0, float(lips.bottom[10, 1]) + 0.06, 0.19, 0.05)
    scene.add("fold", under, person.shadow, 0.36)
    upper_lip = np.concatenate([lips.top, lips.upper[::-1]])
    scene.add("face", upper_lip, mix(red, (70, 10, 20), 0.22))
    scene.add("face", np.concatenate([lips.lower, lips.bottom[::-1]]), red)
    shine = lips.lower[6:15] + np.array([0.0, 0.42 * person.lip_lower])
    scene.brush("face", shine, 0.03, WHITE, 0.3)
    _draw_opening(scene, lips, units, mix(red, (40, 0, 8), 0.65))
    _draw_corners(scene, person, lips, units)


def _draw_opening(scene: Scene, lips: Lips, units: Units, seam: Color) -> None:
    upper, lower, gap = lips.upper, lips.lower, lips.gap
    if gap > 0.01:
        scene.add("face", np.concatenate([upper, lower[::-1]]), (66, 14, 20))
        tongue, teeth = lower.copy(), upper.copy()
        tongue[:, 1] -= 0.45 * units[26] * gap * _ROUND**2
        scene.add("face", np.concatenate([tongue, lower[::-1]]), (176, 72, 78))
        teeth[:, 1] = np.minimum(teeth[:, 1] + min(0.55 * gap, 0.12) * _FLAT**0.6, lower[:, 1])
        scene.add("face", np.concatenate([upper[2:-2], teeth[2:-2][::-1]]), (242, 238, 228))
    scene.brush("face", upper * (1.02, 1.0), 0.04, seam, ends=(0.6, 0.6))


def _draw_corners(scene: Scene, person: Person, lips: Lips, units: Units) -> None:
    x, y = float(lips.upper[-1, 0]), float(lips.upper[-1, 1])
    pouch = bezier((x, y), (x + 0.05, y + 0.06), (x + 0.04, y + 0.16))
    dimple = bezier((x + 0.03, y - 0.08), (x + 0.07, y - 0.01), (x + 0.04, y + 0.07))
    pull = bezier((x + 0.05, y - 0.12), (x + 0.1, y), (x + 0.05, y + 0.14))
    for line, depth in (
        (pouch, 0.85 * units[15]),
        (dimple, 0.8 * units[12]),
        (pull, 0.6 * units[20]),
    ):
        scene.brush("fold", line, 0.055, person.shadow, depth, both=True)
