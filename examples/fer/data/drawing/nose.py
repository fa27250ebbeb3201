"""Draw the nose and the folds next to it, with AU9, and AU6 and AU12, which lift the cheeks."""

import numpy as np

from fer.data.action_units import Units
from fer.data.drawing.color import WHITE, mix
from fer.data.drawing.curves import bezier, ellipse
from fer.data.drawing.person import Person
from fer.data.drawing.scene import Scene


def draw_nose(scene: Scene, person: Person, units: Units) -> None:
    """Add the nose, whose wings rise when it is wrinkled, and the folds of the cheeks."""
    lift = 0.08 * units[9]
    wide = person.nose_width * (1.0 + 0.12 * units[9] + 0.1 * units[12])
    _shade_nose(scene, person, lift, wide)
    tip, dark = person.nose_tip, person.shadow
    nostril = ellipse(0.5 * wide, tip + 0.07 - lift, 0.055, 0.032 + 0.012 * units[9])
    scene.add("face", nostril, mix(dark, (30, 8, 8), 0.5), 0.85, both=True)
    low = tip - lift
    wing = bezier((0.85 * wide, low - 0.1), (1.3 * wide, low + 0.02), (0.85 * wide, low + 0.1))
    scene.brush("face", wing, 0.035, dark, 0.6 + 0.3 * units[9], both=True)
    for row in (0.0, 0.1, 0.2):
        wrinkle = bezier((0.02, row - 0.16), (0.08, row - 0.14), (0.15, row - 0.04))
        depth = 0.85 * units[9] * person.fold_depth
        scene.brush("face", wrinkle, 0.036, dark, depth, both=True)
    _draw_cheeks(scene, person, units, low)


def _shade_nose(scene: Scene, person: Person, lift: float, wide: float) -> None:
    tip, dark, light = person.nose_tip, person.shadow, mix(person.skin, WHITE, 0.45)
    ridge = np.array([(-0.05, -0.25), (0.05, -0.25), (0.07, tip - 0.1), (-0.07, tip - 0.1)])
    scene.add("fold", ridge, light, 0.4)
    scene.add("fold", ellipse(0.0, tip - 0.04 - 0.5 * lift, 0.09, 0.07), light, 0.55)
    low = tip - lift
    base = bezier((-wide, low + 0.06), (-0.08, low + 0.2), (0.08, low + 0.2), (wide, low + 0.06))
    scene.add("fold", base, dark, 0.4)
    # The light comes from the left, so the right side of the nose is darker.
    for side, depth in ((-1, 0.08), (1, 0.24)):
        flank = bezier((0.17 * side, -0.24), (0.07 * side, 0.0), (0.1 * side, tip - 0.12))
        scene.brush("fold", flank, 0.07, dark, depth, ends=(1.4, 0.3))


def _draw_cheeks(scene: Scene, person: Person, units: Units, low: float) -> None:
    """Add the nasolabial folds, from the wings of the nose around the corners of the mouth."""
    out = 0.05 * units[6] + 0.08 * units[12]
    depth = min(1.0, 0.12 + 0.5 * units[6] + 0.45 * units[12] + 0.5 * units[9])
    start = (person.nose_width + 0.06, low)
    end = (person.mouth_width + 0.13 + out, person.mouth_y + 0.02)
    fold = bezier(start, (0.42 + out, person.nose_tip + 0.1), end)
    alpha = 0.75 * depth * person.fold_depth
    scene.brush("fold", fold, 0.075, person.shadow, alpha, both=True)
    bulge = ellipse(0.52 + 0.5 * out, 0.24 - 0.06 * units[6], 0.17, 0.1)
    scene.add("fold", bulge, mix(person.skin, WHITE, 0.4), 0.4 * units[6], both=True)
