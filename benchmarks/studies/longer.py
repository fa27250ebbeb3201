"""Does it change when they train for longer, with or without more against learning by heart?

    python benchmarks/studies/longer.py --data DIR [--scale gpu] [--jobs 2]

Twelve epochs by the recipe of the shorter runs, and with what `--preset strong` has: stronger
augmentation, weight decay, smoothed labels and averaged weights. That is for the scale of a CPU: a
GPU's has forty epochs and all of `strong`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.studies.command import run
from benchmarks.studies.plan import LINEAR, Row, Study
from fer.options import PRESETS

EPOCHS = {"epochs": 12}
OF_THE_SCALE = ("image_size", "lr", "schedule", "reduction")
STRONG = {name: value for name, value in PRESETS["strong"].items() if name not in OF_THE_SCALE}
STRONG |= {"preset": "strong", **EPOCHS}

STUDY = Study(
    "longer",
    "Does it change when they train for longer?",
    (
        Row("linear", {"head": "linear", **EPOCHS}),
        Row("FDRL", EPOCHS),
        Row("linear, strong", {"head": "linear", **STRONG}),
        Row("FDRL, strong", STRONG),
        Row("linear, strong, on a trained backbone", {"head": "linear", **STRONG}, LINEAR),
        Row("FDRL, strong, on a trained backbone", STRONG, LINEAR),
    ),
    against="linear",
)

if __name__ == "__main__":
    run(STUDY, __doc__)
