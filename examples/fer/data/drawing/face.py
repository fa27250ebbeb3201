"""Draw a whole face from a person, action units, a view and a setting."""

from PIL import Image

from fer.data.action_units import Units
from fer.data.drawing.brows import draw_brows
from fer.data.drawing.curves import Points
from fer.data.drawing.eyes import draw_eyes, iris_centers
from fer.data.drawing.hair import draw_beard, draw_hair
from fer.data.drawing.head import draw_head
from fer.data.drawing.mouth import draw_mouth
from fer.data.drawing.nose import draw_nose
from fer.data.drawing.person import Person
from fer.data.drawing.scene import SUPERSAMPLING, Scene
from fer.data.drawing.setting import (
    Setting,
    draw_backdrop,
    draw_glasses,
    draw_hand,
    draw_shirt,
)
from fer.data.drawing.view import View


def draw_face(person: Person, units: Units, view: View, setting: Setting, size: int) -> Image.Image:
    """Return an RGB picture of a face, `size` pixels wide and high.

    Args:
        person: the identity.
        units: the intensity in [0, 1] of every unit in `UNITS`.
        view: pose and framing.
        setting: what is behind and in front of the face.
        size: the width and height in pixels.
    """
    scene = Scene()
    # Within a layer, later shapes are in front: the hair is behind the neck, the shirt before it.
    draw_backdrop(scene, setting)
    draw_hair(scene, person)
    draw_head(scene, person, units)
    draw_shirt(scene, setting)
    draw_beard(scene, person, units)
    draw_nose(scene, person, units)
    draw_mouth(scene, person, units)
    draw_eyes(scene, person, units, view.gaze)
    draw_brows(scene, person, units)
    draw_glasses(scene, person)
    draw_hand(scene, person, setting)
    return scene.paint(view, size, person.skin, setting.background)


def project_eyes(person: Person, view: View, size: int) -> Points:
    """Return the positions of the left and right eye of a drawn face: pixels (2, 2), x before y.

    The center of the first pixel is (0, 0). The positions do not depend on the gaze.
    """
    # Polygons use this convention at the supersampled size; a final pixel is the mean of a block.
    return (view.project(iris_centers(person), size * SUPERSAMPLING) + 0.5) / SUPERSAMPLING - 0.5
