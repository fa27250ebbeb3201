"""Action units of the face, and how likely each is in each of the seven basic expressions.

The units are those of FACS (Ekman and Friesen 1978), by number. The units of an expression follow
the prototypes of EMFACS. The likelihoods are our choice. They are below 1 and above 0, so that a
unit may be missing and an unrelated one may occur. Expressions share units and therefore overlap,
as on real faces: fear with surprise, disgust with anger, faint expressions with neutral.
"""

from collections.abc import Mapping

import numpy as np

UNITS: Mapping[int, str] = {
    1: "inner brow raiser",
    2: "outer brow raiser",
    4: "brow lowerer",
    5: "upper lid raiser",
    6: "cheek raiser",
    9: "nose wrinkler",
    12: "lip corner puller",
    15: "lip corner depressor",
    20: "lip stretcher",
    25: "lips part",
    26: "jaw drop",
    43: "eyes closed",
}
UNIT_NAMES = tuple(f"AU{number} {name}" for number, name in UNITS.items())

# The order of the classes is RAF-DB's.
LIKELIHOODS: Mapping[str, Mapping[int, float]] = {
    "Surprise": {1: 0.92, 2: 0.92, 5: 0.80, 25: 0.90, 26: 0.85},
    "Fear": {1: 0.90, 2: 0.50, 4: 0.80, 5: 0.85, 20: 0.85, 25: 0.70, 26: 0.20},
    "Disgust": {4: 0.50, 6: 0.20, 9: 0.94, 15: 0.60, 25: 0.40, 43: 0.12},
    "Happiness": {6: 0.80, 12: 0.97, 25: 0.65, 26: 0.15, 43: 0.10},
    "Sadness": {1: 0.85, 4: 0.60, 15: 0.92, 20: 0.06, 43: 0.25},
    "Anger": {4: 0.96, 5: 0.65, 9: 0.15, 15: 0.30, 20: 0.20, 25: 0.45, 26: 0.12},
    "Neutral": {},
}
EXPRESSIONS = tuple(LIKELIHOODS)

# The likelihood of a unit in an expression that is not listed with it above.
UNLISTED_LIKELIHOOD = 0.03

Units = Mapping[int, float]


def sample_units(rng: np.random.Generator, expression: str) -> dict[int, float]:
    """Draw the intensity in [0, 1] of every unit for one sample of an expression.

    The strength of the expression is drawn first and scales all its units; units that do not
    belong to the expression are faint. Units that exclude or imply one another follow FACS: closed
    eyes show no raised lid, and a dropped jaw parts the lips.
    """
    own = LIKELIHOODS[expression]
    strength = rng.uniform(0.45, 1.0)
    chances, spreads, faint = rng.random(len(UNITS)), rng.random(len(UNITS)), rng.random(len(UNITS))
    intensities: dict[int, float] = {}
    for column, number in enumerate(UNITS):
        shown = chances[column] < own.get(number, UNLISTED_LIKELIHOOD)
        amount = strength * (0.7 + 0.6 * spreads[column]) if number in own else 0.4 * faint[column]
        intensities[number] = float(min(amount, 1.0)) if shown else 0.0
    if intensities[43] > 0:
        intensities[5] = 0.0
    intensities[25] = max(intensities[25], intensities[26])
    return intensities
