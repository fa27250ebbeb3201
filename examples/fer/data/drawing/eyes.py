"""Draw the eyes and the effects of AU5, AU6, AU43 and of the squint of AU4 and AU9."""

import numpy as np

from fer.data.action_units import Units
from fer.data.drawing.color import BLACK, WHITE, mix
from fer.data.drawing.curves import CIRCLE, Points, bezier
from fer.data.drawing.person import Person
from fer.data.drawing.scene import Scene

_T = np.linspace(-1.0, 1.0, 15)  # from the inner to the outer corner
_ARCH = (1.0 - _T**2) ** 0.75
# Rim, iris, pupil and highlight, as shares of the iris.
_RINGS = np.array([1.0, 0.82, 0.45, 0.3])[:, None, None]


def lid_edges(person: Person, units: Units) -> tuple[Points, Points]:
    """Return the edges of the upper and the lower lid of the right eye, from the inner corner."""
    height = person.eye_height
    squint = 0.20 * units[4] + 0.25 * units[6] + 0.35 * units[9]
    up = height * (1.0 - 0.5 * squint + 0.75 * units[5])
    low = height * (0.62 - 0.3 * squint - 0.75 * units[6] + 0.1 * units[5])
    x = person.eye_x + person.eye_width * _T
    corners = person.eye_y - person.eye_tilt * _T
    # Closed lids meet below the corners.
    shut = corners + max(low, 0.5 * height) * _ARCH
    upper = corners - up * _ARCH * (1.0 - 0.12 * _T)
    lower = corners + low * _ARCH
    upper, lower = upper + units[43] * (shut - upper), lower + units[43] * (shut - lower)
    return np.stack([x, np.minimum(upper, lower)], axis=1), np.stack([x, lower], axis=1)


def iris_centers(person: Person) -> Points:
    """Return the centers (2, 2) of the left and right iris of a person who looks straight ahead."""
    y = person.eye_y - 0.015
    return np.array([(-person.eye_x, y), (person.eye_x, y)])


def draw_eyes(scene: Scene, person: Person, units: Units, gaze: float) -> None:
    """Add both eyes."""
    upper, lower = lid_edges(person, units)
    scene.add("face", np.concatenate([upper, lower[::-1]]), (246, 242, 238), both=True)
    _draw_irises(scene, person, upper, lower, gaze)
    shaded = np.stack([upper[:, 0], np.minimum(upper[:, 1] + 0.05, lower[:, 1])], axis=1)
    scene.add("face", np.concatenate([upper, shaded[::-1]]), BLACK, 0.25, both=True)
    lash = mix(person.skin, (20, 12, 10), 0.9)
    scene.brush("face", lower, 0.03, person.shadow, 0.75, both=True)
    scene.brush("face", upper, 0.055, lash, ends=(0.3, 0.9), both=True)
    _draw_lid_folds(scene, person, units, upper, lower)
    _draw_crows_feet(scene, person, units[6])


def _draw_irises(scene: Scene, person: Person, upper: Points, lower: Points, gaze: float) -> None:
    radius = person.iris_radius
    colors = (mix(person.iris, BLACK, 0.45), person.iris, BLACK, WHITE)
    for side in (-1, 1):
        # The shape is that of the right eye, mirrored; the gaze and the highlight are not mirrored.
        x, y = iris_centers(person)[1] + (side * gaze, 0.0)
        middles = np.array([(x, y)] * 3 + [(x - side * 0.35 * radius, y - 0.35 * radius)])
        disks = middles[:, None] + CIRCLE * (radius * _RINGS)
        disks[..., 1] = np.clip(
            disks[..., 1],
            np.interp(disks[..., 0], upper[:, 0], upper[:, 1]),
            np.interp(disks[..., 0], lower[:, 0], lower[:, 1]),
        )
        for disk, color in zip(disks * (side, 1.0), colors, strict=True):
            scene.add("face", disk, color)


def _draw_lid_folds(
    scene: Scene, person: Person, units: Units, upper: Points, lower: Points
) -> None:
    # The crease does not move when the lid closes over the eye.
    rest = person.eye_y - 0.8 * person.eye_height * _ARCH
    crease = upper.copy()
    crease[:, 1] += units[43] * (rest - crease[:, 1]) - 0.062
    scene.brush("fold", crease[1:-1], 0.045, person.shadow, 0.55, both=True)
    bag = 0.25 + 0.3 * units[6]
    scene.brush("fold", lower[1:-1] + np.array([0.0, 0.1]), 0.05, person.shadow, bag, both=True)
    x, y = person.eye_x, person.eye_y
    cheek = bezier((x - 0.2, y + 0.2), (x, y + 0.25 - 0.06 * units[6]), (x + 0.26, y + 0.12))
    depth = 0.75 * units[6] * person.fold_depth
    scene.brush("fold", cheek, 0.05, person.shadow, depth, both=True)


def _draw_crows_feet(scene: Scene, person: Person, raised: float) -> None:
    x, y = person.eye_x + person.eye_width + 0.07, person.eye_y
    for rise in (-0.09, 0.0, 0.09):
        line = bezier((x, y + 0.4 * rise), (x + 0.08, y + 0.7 * rise), (x + 0.15, y + 1.5 * rise))
        depth = 0.7 * raised * person.wrinkle_depth
        scene.brush("face", line, 0.03, person.shadow, depth, both=True)
