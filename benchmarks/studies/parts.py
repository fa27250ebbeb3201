"""What does each part add? The ladder of the paper's table 2.

    python benchmarks/studies/parts.py --data DIR [--scale gpu] [--jobs 2]

Each part is left out as the paper's table 2 has it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.studies.command import run
from benchmarks.studies.plan import FDRL, LINEAR, Row, Study

STUDY = Study(
    "parts",
    "What does each part add (table 2)?",
    (
        LINEAR,
        Row("+ FDN", {"intra": False, "inter": False}),
        Row("+ FDN + Inter-RM", {"intra": False}),
        Row("+ FDN + Intra-RM", {"inter": False}),
        FDRL,
    ),
    against="linear",
)

if __name__ == "__main__":
    run(STUDY, __doc__)
