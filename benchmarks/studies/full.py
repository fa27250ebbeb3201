"""Is FDRL level with its baseline at full size? A ResNet-18 on a GPU, half of its scale's epochs.

    python benchmarks/studies/full.py --data DIR --scale gpu [--jobs 8]

Twenty epochs by the recipe of the scale for a GPU, from random weights.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.studies.command import run
from benchmarks.studies.plan import AS_PRINTED, FDRL, LINEAR, Row, Study

EPOCHS = {"epochs": 20}

STUDY = Study(
    "full",
    "Is FDRL level with its baseline at full size?",
    (
        *(Row(row.label, {**row.changes, **EPOCHS}) for row in (LINEAR, FDRL, AS_PRINTED)),
        Row("FDRL, attention of each latent", {"attach": "attention", **EPOCHS}),
    ),
    against="linear",
)

if __name__ == "__main__":
    run(STUDY, __doc__)
