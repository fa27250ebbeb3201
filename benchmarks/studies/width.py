"""Is it the structure or the width? FDRL against plain heads of two layers.

    python benchmarks/studies/width.py --data DIR [--scale gpu] [--jobs 2]

The plain heads predict from 128 values, as FDRL does.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.studies.command import run
from benchmarks.studies.plan import FDRL, LINEAR, Row, Study

STUDY = Study(
    "width",
    "Is it the structure or the width?",
    (
        LINEAR,
        FDRL,
        Row("plain, of FDRL's width", {"head": "plain", "hidden": 1152}),
        Row("plain, as many parameters", {"head": "plain"}),
        Row("plain, four times as wide", {"head": "plain", "hidden": 4608}),
    ),
    against="FDRL",
)

if __name__ == "__main__":
    run(STUDY, __doc__)
