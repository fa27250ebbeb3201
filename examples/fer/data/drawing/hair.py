"""Hair and beards."""

import numpy as np

from fer.data.action_units import Units
from fer.data.drawing.color import BLACK, WHITE, mix
from fer.data.drawing.curves import bezier, ellipse
from fer.data.drawing.head import chin_height, lower_outline
from fer.data.drawing.person import Person
from fer.data.drawing.scene import Scene

# Control points of the edge of the hair on the forehead, from the right to the left.
_HAIRLINES = {
    "short": ((0.97, 0.0), (0.9, -0.8), (0.75, -0.94), (-0.75, -0.94), (-0.9, -0.8), (-0.97, 0.0)),
    "fringe": ((0.97, 0.0), (0.95, -0.8), (0.4, -0.66), (-0.5, -0.52), (-0.9, -0.8), (-0.97, 0.0)),
    "parted": ((0.97, 0.0), (0.98, -0.5), (0.7, -0.6), (0.2, -1.0), (-0.6, -0.9), (-0.97, 0.0)),
    "long": ((0.97, 0.7), (0.78, -0.3), (0.7, -1.1), (-0.7, -1.1), (-0.78, -0.3), (-0.97, 0.7)),
}


def draw_hair(scene: Scene, person: Person) -> None:
    """Add the hair."""
    if person.style == "bald":
        return
    if person.style == "long":
        fall = np.array([(1.24, -0.2), (1.36, 2.2), (-1.36, 2.2), (-1.24, -0.2)])
        back = np.concatenate([ellipse(0.0, -0.2, 1.24, 1.2)[12:], fall])
        scene.add("back", back, mix(person.hair, BLACK, 0.25))
    top = person.crown
    cap = bezier((-1.03, 0.02), (-1.26, 1.68 * top), (1.26, 1.68 * top), (1.03, 0.02), count=24)
    line = bezier(*_HAIRLINES[person.style], count=20)
    scene.add("hair", np.concatenate([cap, line]), person.hair)
    # A sheen across the crown.
    for peak, shine in ((1.21 * top, 0.07), (1.27 * top, 0.12)):
        sheen = bezier((-0.8, 0.8 * top), (-0.3, peak), (0.3, peak), (0.8, 0.8 * top))
        scene.brush("hair", sheen, 0.1, mix(person.hair, WHITE, shine), 0.7)


def draw_beard(scene: Scene, person: Person, units: Units) -> None:
    """Add a beard, which moves with a dropped jaw, and its moustache."""
    rim = lower_outline(person, chin_height(person, units))
    cheek, low, lip = (0.93, 0.3), (0.7, 0.9), (0.45, person.mouth_y - 0.2)
    right = (lip, low, cheek)
    left = tuple((-x, y) for x, y in reversed(right))
    inner = bezier(*left, (0.0, person.nose_tip + 0.1), *right, count=20)
    scene.add("beard", np.concatenate([rim[rim[:, 1] > 0.3], inner]), person.hair, person.beard)
