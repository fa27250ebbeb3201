"""Does it help where faces are few, and each is seen often?

    python benchmarks/studies/few.py --data DIR [--scale gpu] [--jobs 2]

The paper gains most on its smallest databases. Here 2,560 of the training faces are left, the same
for every seed, and forty epochs; a network then learns them by heart. The paper's backbone also
knows faces: here the nearest to it is one that has learned drawn faces first (pretraining.py).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.studies.command import run
from benchmarks.studies.plan import LINEAR_DRAWN, Row, Study

FEW = {"limit": 2560, "epochs": 40}

STUDY = Study(
    "few",
    "Does it help where faces are few?",
    (
        Row("linear", {"head": "linear", **FEW}),
        Row("plain", {"head": "plain", **FEW}),
        Row("FDRL", FEW),
        Row("FDRL as printed", {"reduction": "sum", **FEW}),
        Row("linear, after drawn faces", {"head": "linear", **FEW}, LINEAR_DRAWN),
        Row("plain, after drawn faces", {"head": "plain", **FEW}, LINEAR_DRAWN),
        Row("FDRL, after drawn faces", FEW, LINEAR_DRAWN),
    ),
    against="linear",
)

if __name__ == "__main__":
    run(STUDY, __doc__)
