"""Does the head help on a backbone that knows faces, as in the paper?

    python benchmarks/studies/stages.py --data DIR [--scale gpu] [--jobs 2]

Every row starts from the backbone that the baseline of the same seed has trained, and trains for
as long once more; the baseline too, with a new last layer.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.studies.command import run
from benchmarks.studies.plan import LINEAR, Row, Study
from benchmarks.studies.reduction import grid

LINEAR_AGAIN = Row("linear", {"head": "linear"}, LINEAR)

STUDY = Study(
    "stages",
    "Does the head help on a trained backbone?",
    (
        LINEAR_AGAIN,
        Row("plain", {"head": "plain"}, LINEAR),
        *grid(LINEAR),
        Row("mean, λ2 = 1, attention", {"attach": "attention"}, LINEAR),
        Row("mean, λ2 = 1, places", {"attach": "places"}, LINEAR),
        Row("linear, a fifth of the rate", {"head": "linear", "lr": 1e-3}, LINEAR),
        Row("mean, λ2 = 1, a fifth of the rate", {"lr": 1e-3}, LINEAR),
    ),
    against="linear",
    by_class=("mean, λ2 = 1",),
)

if __name__ == "__main__":
    run(STUDY, __doc__)
