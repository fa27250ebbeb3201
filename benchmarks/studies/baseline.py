"""Does the head help? The paper's baseline against FDRL, as printed and with a mean for its sum.

    python benchmarks/studies/baseline.py --data DIR [--scale gpu] [--jobs 2]

Trains what is missing under benchmarks/results/studies/ and prints the table. `--rows LABEL`,
`--seeds N` and `--again` repeat a single line of it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.studies.command import run
from benchmarks.studies.plan import AS_PRINTED, FDRL, LINEAR, Study

STUDY = Study(
    "baseline",
    "Does the head help?",
    (LINEAR, FDRL, AS_PRINTED),
    against="linear",
    by_class=("FDRL",),
)

if __name__ == "__main__":
    run(STUDY, __doc__)
