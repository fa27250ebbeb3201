"""What do the usual remedies for rare classes do to accuracy, and to the mean over classes?

    python benchmarks/studies/remedies.py --data DIR [--scale gpu] [--jobs 2]

Contempt is 1 % of FER+, and fear and disgust are not much more.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.studies.command import run
from benchmarks.studies.plan import FDRL, Row, Study

STUDY = Study(
    "remedies",
    "What do remedies for rare classes do?",
    (
        FDRL,
        Row("balanced weights", {"class_weights": "balanced"}),
        Row("weights by square roots", {"class_weights": "sqrt"}),
        Row("balanced sampler", {"sampler": "balanced"}),
        Row("adjusted logits", {"logit_adjust": 1.0}),
        # Which has no smoothed labels.
        Row("focal loss", {"criterion": "focal", "label_smoothing": 0.0}),
    ),
    against=FDRL.label,
    by_class=("balanced sampler",),
)

if __name__ == "__main__":
    run(STUDY, __doc__)
