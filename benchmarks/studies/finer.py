"""Does it help to attach to maps of more places?

    python benchmarks/studies/finer.py --data DIR [--scale gpu] [--jobs 2]

Facial actions are local, and the usual maps have 3 x 3 places of a face, or 4 x 4. Here the last
stage keeps the sides: four times as many, for the baseline too. Every row starts from the backbone
that this baseline of the same seed has trained, and trains for as long once more.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.studies.command import run
from benchmarks.studies.plan import Row, Study

FINE = {"last_stride": 1}
LINEAR_FINE = Row("linear, finer maps", {"head": "linear", **FINE})

STUDY = Study(
    "finer",
    "Does it help to attach to maps of more places?",
    (
        Row("linear", {"head": "linear", **FINE}, LINEAR_FINE),
        Row("FDRL", FINE, LINEAR_FINE),
        Row("FDRL, attention", {**FINE, "attach": "attention"}, LINEAR_FINE),
        Row("FDRL, places", {**FINE, "attach": "places"}, LINEAR_FINE),
    ),
    against="linear",
)

if __name__ == "__main__":
    run(STUDY, __doc__)
