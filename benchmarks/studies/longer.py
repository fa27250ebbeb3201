"""Does it change when they train for longer, with more against learning by heart?

    python benchmarks/studies/longer.py --data DIR [--scale gpu] [--jobs 2]

Twelve epochs with what `--preset strong` has: stronger augmentation, weight decay, smoothed labels
and averaged weights; the baseline without them too, with the recipe of the shorter runs, to say by
its accuracy on valid what they are worth.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.studies.command import run
from benchmarks.studies.plan import LINEAR, Row, Study
from fer.options import PRESETS

OF_THE_SCALE = ("image_size", "lr", "schedule", "reduction")
STRONG = {name: value for name, value in PRESETS["strong"].items() if name not in OF_THE_SCALE}
STRONG |= {"preset": "strong", "epochs": 12}

STUDY = Study(
    "longer",
    "Does it change when they train for longer?",
    (
        Row("linear", {"head": "linear", **STRONG}),
        Row("linear, plain recipe", {"head": "linear", "epochs": STRONG["epochs"]}),
        Row("FDRL", STRONG),
        Row("linear, on a trained backbone", {"head": "linear", **STRONG}, LINEAR),
        Row("FDRL, on a trained backbone", STRONG, LINEAR),
    ),
    against="linear",
)

if __name__ == "__main__":
    run(STUDY, __doc__)
