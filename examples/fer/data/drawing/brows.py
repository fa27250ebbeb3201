"""Draw the brows, and the effects of AU1, AU2 and AU4 on them and on the forehead."""

from fer.data.action_units import Units
from fer.data.drawing.color import mix
from fer.data.drawing.curves import bezier
from fer.data.drawing.person import Person
from fer.data.drawing.scene import Scene


def draw_brows(scene: Scene, person: Person, units: Units) -> None:
    """Add both brows and the lines that raised or lowered brows cause on the forehead."""
    x, y, slant = person.eye_x, person.brow_y, person.brow_slant
    raised, arched, wrinkled = units[1], units[2], units[9]
    # AU1 and AU4 together raise the brows and draw them together; AU4 alone lowers them.
    knit, lowered = 0.09 * units[4], units[4] * (1.0 - 0.75 * raised)
    inner = (x - 0.25 - knit, y + 0.01 - slant - 0.19 * raised + 0.16 * lowered + 0.06 * wrinkled)
    middle_y = y - 0.05 - 0.09 * raised - 0.12 * arched + 0.10 * lowered + 0.05 * wrinkled
    middle = (x - 0.05 - 0.5 * knit, middle_y)
    peak = (x + 0.12, y - 0.07 - 0.21 * arched + 0.05 * units[4] + 0.03 * wrinkled)
    outer = (x + 0.31, y + 0.05 + slant - 0.11 * arched + 0.04 * units[4])
    brow = bezier(inner, middle, peak, outer, count=12)
    color = mix(person.hair, (20, 14, 12), 0.35)
    scene.brush("face", brow, person.brow_width, color, ends=(0.75, 0.1), both=True)
    _draw_forehead(scene, person, units)


def _draw_forehead(scene: Scene, person: Person, units: Units) -> None:
    x, y, dark = person.eye_x, person.brow_y, person.shadow
    furrow = bezier((0.075, y + 0.16), (0.055, y + 0.02), (0.085, y - 0.1))
    scene.brush("fold", furrow, 0.07, dark, 0.85 * units[4] * person.wrinkle_depth, both=True)
    for rise in (0.16, 0.3):
        low = y - rise
        arc = bezier((x - 0.16, low - 0.1), (x + 0.1, low - 0.2), (x + 0.32, low - 0.04))
        scene.brush("fold", arc, 0.045, dark, 0.8 * units[2] * person.wrinkle_depth, both=True)
    for rise in (0.14, 0.26, 0.38):
        low = y - rise
        arc = bezier((-0.32, low - 0.03), (0.0, low + 0.05), (0.32, low - 0.03))
        scene.brush("fold", arc, 0.045, dark, 0.8 * units[1] * person.wrinkle_depth)
