"""How many latents (figure 4)?

    python benchmarks/studies/latents.py --data DIR [--scale gpu] [--jobs 2]

The paper takes nine.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.studies.command import run
from benchmarks.studies.plan import FDRL, Row, Study

STUDY = Study(
    "latents",
    "How many latents (figure 4)?",
    tuple(FDRL if m == 9 else Row(f"M = {m}", {"num_latents": m}) for m in (1, 3, 5, 7, 9, 11, 16)),
    against="FDRL",
)

if __name__ == "__main__":
    run(STUDY, __doc__)
