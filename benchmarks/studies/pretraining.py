"""Do faces that we draw ourselves teach a backbone something about real ones?

    python benchmarks/studies/pretraining.py --data DIR [--scale gpu] [--jobs 2]

The backbone first learns the expressions of drawn faces, by the same recipe.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.studies.command import run
from benchmarks.studies.plan import FDRL, LINEAR, LINEAR_DRAWN, Row, Study

STUDY = Study(
    "pretraining",
    "Do drawn faces help?",
    (
        LINEAR,
        Row("linear, after drawn faces", {"head": "linear"}, LINEAR_DRAWN),
        FDRL,
        Row("FDRL, after drawn faces", {}, LINEAR_DRAWN),
    ),
    against="linear",
)

if __name__ == "__main__":
    run(STUDY, __doc__)
