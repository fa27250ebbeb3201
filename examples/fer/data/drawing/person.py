"""The identity of a drawn face: its geometry and its colors."""

from dataclasses import dataclass

import numpy as np

from fer.data.drawing.color import Color, mix

_SKINS: tuple[Color, ...] = (
    (252, 222, 200),
    (240, 200, 168),
    (226, 180, 140),
    (198, 144, 104),
    (150, 100, 68),
    (104, 68, 48),
)
# The darker half of the skins is combined only with the first two of these hairs and irises.
_HAIRS: tuple[Color, ...] = (
    (32, 26, 26),
    (58, 38, 28),
    (98, 62, 36),
    (150, 104, 58),
    (206, 168, 104),
    (150, 66, 32),
    (158, 154, 150),
)
_IRISES: tuple[Color, ...] = (
    (50, 32, 24),
    (80, 50, 30),
    (104, 82, 44),
    (72, 110, 132),
    (84, 116, 80),
)
_STYLES = {"short": 0.3, "fringe": 0.2, "parted": 0.2, "long": 0.2, "bald": 0.1}


@dataclass(frozen=True)
class Person:
    """One identity; the defaults are a plain face. Lengths are in face coordinates."""

    jaw: float = 2.4  # exponent of the lower outline: 2 is an ellipse, 3 a square jaw
    chin: float = 1.24
    crown: float = -1.12
    eye_x: float = 0.41
    eye_y: float = -0.13
    eye_width: float = 0.225
    eye_height: float = 0.112
    eye_tilt: float = 0.02
    iris_radius: float = 0.104
    brow_y: float = -0.41
    brow_width: float = 0.09
    brow_slant: float = 0.0  # positive: the inner ends rise, the outer ends sink
    nose_tip: float = 0.34
    nose_width: float = 0.18
    mouth_y: float = 0.73
    mouth_width: float = 0.36
    mouth_sag: float = 0.0  # how far the corners hang at rest
    lip_upper: float = 0.07
    lip_lower: float = 0.095
    wrinkle_depth: float = 0.8  # how deep wrinkles cut, up to 1
    lip_red: float = 0.5
    beard: float = 0.0  # opacity: a shadow below 0.35, a full beard above
    skin: Color = (240, 200, 168)
    hair: Color = (58, 38, 28)
    iris: Color = (84, 62, 38)
    style: str = "short"
    glasses: Color | None = None

    @property
    def shadow(self) -> Color:
        """The color of folds and shaded areas."""
        return mix(self.skin, (60, 20, 10), 0.6)

    @property
    def fold_depth(self) -> float:
        """The depth of the folds that a smooth face has as well."""
        return 0.4 + 0.6 * self.wrinkle_depth


# The standard deviation of each length over people; draws are clipped to 2.2 deviations.
_SPREADS = {
    "jaw": 0.2,
    "chin": 0.06,
    "crown": 0.04,
    "eye_x": 0.025,
    "eye_y": 0.025,
    "eye_width": 0.015,
    "eye_height": 0.014,
    "eye_tilt": 0.015,
    "iris_radius": 0.005,
    "brow_y": 0.03,
    "brow_width": 0.018,
    "brow_slant": 0.022,
    "nose_tip": 0.04,
    "nose_width": 0.02,
    "mouth_y": 0.03,
    "mouth_width": 0.03,
    "mouth_sag": 0.02,
    "lip_upper": 0.013,
    "lip_lower": 0.016,
}


def sample_person(rng: np.random.Generator) -> Person:
    """Draw a random identity."""
    steps = np.clip(rng.standard_normal(len(_SPREADS)), -2.2, 2.2)
    typical = Person()
    lengths = {
        name: getattr(typical, name) + spread * float(step)
        for (name, spread), step in zip(_SPREADS.items(), steps, strict=True)
    }
    tone = rng.random() * (len(_SKINS) - 1)
    fair = tone < 0.5 * len(_SKINS)
    return Person(
        **lengths,
        wrinkle_depth=rng.uniform(0.35, 1.0),
        lip_red=rng.uniform(0.35, 0.65),
        beard=rng.uniform(0.15, 0.9) if rng.random() < 0.2 else 0.0,
        skin=mix(_SKINS[int(tone)], _SKINS[int(tone) + 1], tone % 1),
        hair=_HAIRS[rng.integers(len(_HAIRS) if fair else 2)],
        iris=_IRISES[rng.integers(len(_IRISES) if fair else 2)],
        style=str(rng.choice(list(_STYLES), p=list(_STYLES.values()))),
        glasses=mix((20, 20, 20), (150, 90, 50), rng.random()) if rng.random() < 0.18 else None,
    )
