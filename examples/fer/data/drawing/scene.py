"""Represent a face as colored polygons in layers, and paint them."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from fer.data.drawing.color import Color
from fer.data.drawing.curves import Points, stroke
from fer.data.drawing.view import View

SUPERSAMPLING = 3
# From the back to the front. "skin" is the outline within which the soft layers "shade" and
# "fold" appear: "shade" is blurred much, "fold" little.
LAYERS = ("back", "skin", "shade", "fold", "beard", "face", "hair", "front")
_MIRROR = np.array([-1.0, 1.0])
_INVISIBLE = 0.02

Shape = tuple[Points, tuple[int, int, int, int]]


@dataclass
class Scene:
    """Polygons in face coordinates, by layer, in the order in which they are painted."""

    shapes: dict[str, list[Shape]] = field(default_factory=lambda: {name: [] for name in LAYERS})

    def add(
        self, layer: str, points: Points, color: Color, alpha: float = 1.0, *, both: bool = False
    ) -> None:
        """Add a polygon.

        Args:
            layer: one of `LAYERS`.
            points: (n, 2), the corners.
            color: the color to fill it with.
            alpha: the opacity; 1 is opaque, 0 is invisible.
            both: add the mirror image on the other half of the face as well.
        """
        if alpha < _INVISIBLE:
            return
        fill = (*color, round(255 * min(alpha, 1.0)))
        self.shapes[layer].append((points, fill))
        if both:
            self.shapes[layer].append((points * _MIRROR, fill))

    def brush(
        self,
        layer: str,
        line: Points,
        width: float,
        color: Color,
        alpha: float = 1.0,
        *,
        ends: tuple[float, float] = (0.0, 0.0),
        both: bool = False,
    ) -> None:
        """Add a brush stroke along a line; `ends` are its widths there relative to `width`."""
        if alpha >= _INVISIBLE:
            self.add(layer, stroke(line, width, *ends), color, alpha, both=both)

    def paint(self, view: View, size: int, skin: Color, background: Color) -> Image.Image:
        """Return the picture, `size` pixels wide and high."""
        wide = size * SUPERSAMPLING
        shapes = self._project(view, wide)
        picture = Image.new("RGB", (wide, wide), background)
        _fill(picture, shapes["back"])
        mask = Image.new("1", (wide, wide))
        for outline, _ in shapes["skin"]:
            ImageDraw.Draw(mask).polygon(outline.ravel().tolist(), fill=1)
        # The final mean over blocks reverses this enlargement, so nearest neighbors are sufficient.
        soft = _soft_skin(shapes, size, skin)
        picture.paste(soft.resize((wide, wide), Image.Resampling.NEAREST), mask=mask)
        for layer in ("beard", "face", "hair", "front"):
            _fill(picture, shapes[layer])
        return picture.reduce(SUPERSAMPLING)

    def _project(self, view: View, wide: int) -> dict[str, list[Shape]]:
        # One projection of all points is much faster than one for each polygon.
        every = [points for layer in LAYERS for points, _ in self.shapes[layer]]
        pixels = view.project(np.concatenate(every), wide)
        projected: dict[str, list[Shape]] = {name: [] for name in LAYERS}
        start = 0
        for layer in LAYERS:
            for points, color in self.shapes[layer]:
                stop = start + len(points)
                projected[layer].append((pixels[start:stop], color))
                start = stop
        return projected


def _fill(picture: Image.Image, shapes: Iterable[Shape], *, shrink: float = 1.0) -> None:
    # Blending is slower, so it is used only for polygons that are not opaque.
    cover, blend = ImageDraw.Draw(picture), ImageDraw.Draw(picture, "RGBA")
    for points, color in shapes:
        corners = (points * shrink).ravel().tolist()
        if color[3] == 255:
            cover.polygon(corners, fill=color[:3])
        else:
            blend.polygon(corners, fill=color)


def _soft_skin(shapes: dict[str, list[Shape]], size: int, skin: Color) -> Image.Image:
    """Paint shading and folds at the final size, at which a blur is cheap."""
    soft = Image.new("RGB", (size, size), skin)
    _fill(soft, shapes["shade"], shrink=1 / SUPERSAMPLING)
    soft = soft.filter(ImageFilter.BoxBlur(size / 24)).filter(ImageFilter.BoxBlur(size / 30))
    _fill(soft, shapes["fold"], shrink=1 / SUPERSAMPLING)
    return soft.filter(ImageFilter.BoxBlur(size / 120))
