"""Draw the head without its features: outline, neck, ears and the shading of the skin."""

import numpy as np

from fer.data.action_units import Units
from fer.data.drawing.color import BLACK, WHITE, mix
from fer.data.drawing.curves import Points, ellipse
from fer.data.drawing.person import Person
from fer.data.drawing.scene import Scene

_TURN = np.linspace(0.0, np.pi, 32)
_NECK = np.array([(-0.5, 0.7), (0.5, 0.7), (0.56, 2.2), (-0.56, 2.2)])


def chin_height(person: Person, units: Units) -> float:
    """Return the vertical position of the chin, which moves down with a dropped jaw."""
    return person.chin + 0.2 * units[26]


def lower_outline(person: Person, chin: float) -> Points:
    """Return the outline of the face from one temple around the chin to the other."""
    x, y = np.cos(_TURN), np.sin(_TURN)
    lower = np.stack([np.sign(x) * np.abs(x) ** (2 / person.jaw), chin * y ** (2 / person.jaw)], 1)
    # A superellipse alone bulges at the jaw; a face narrows towards the chin.
    lower[:, 0] *= 1.0 - 0.24 * (lower[:, 1] / chin) ** 1.6
    return lower


def draw_head(scene: Scene, person: Person, units: Units) -> None:
    """Add neck, ears and the skin of the face."""
    chin = chin_height(person, units)
    upper = np.stack([-np.cos(_TURN), person.crown * np.sin(_TURN)], axis=1)[1:-1]
    outline = np.concatenate([lower_outline(person, chin), upper])
    scene.add("back", _NECK, mix(person.skin, person.shadow, 0.65))
    for width, height, depth in ((0.14, 0.26, 0.3), (0.08, 0.17, 0.6)):
        ear = ellipse(1.02, 0.08, width, height)
        scene.add("back", ear, mix(person.skin, person.shadow, depth), both=True)
    scene.add("skin", outline, BLACK)
    _shade(scene, person, outline, chin)


def _shade(scene: Scene, person: Person, outline: Points, chin: float) -> None:
    dark, light = mix(person.skin, person.shadow, 0.7), mix(person.skin, WHITE, 0.35)
    blush = mix(person.skin, (230, 60, 50), 0.35)
    # A dark rim; the lit front of the face is painted over it.
    scene.add("shade", outline * 1.3, dark)
    scene.add("shade", outline * 0.93, person.skin)
    scene.add("shade", ellipse(0.0, -0.68, 0.5, 0.22), light, 0.6)
    scene.add("shade", ellipse(0.0, chin - 0.14, 0.2, 0.1), light, 0.6)
    scene.add("shade", ellipse(0.56, 0.38, 0.26, 0.2), blush, 0.5, both=True)
    scene.add("shade", ellipse(0.5, 0.2, 0.2, 0.1), light, 0.7, both=True)
    scene.add("shade", ellipse(0.36, -0.2, 0.24, 0.15), dark, 0.42, both=True)
