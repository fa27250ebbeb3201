"""How are centers to move, and how heavy are the losses around them to be (table 1)?

    python benchmarks/studies/centers.py --data DIR [--scale gpu] [--jobs 2]

FDRL itself has the alpha rule, and the paper's 0.0001 for both weights.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.studies.command import run
from benchmarks.studies.plan import FDRL, Row, Study

LAMBDAS = (0.0, 1e-5, 1e-3, 1e-2, 1e-1)
"""The paper's grid but for its own value, 0.0001, and one beyond it."""

STUDY = Study(
    "centers",
    "How are centers to move, and how heavy are λ1 and λ3 to be?",
    (
        FDRL,
        Row("moving average", {"center_update": "ema"}),
        Row("gradient", {"center_update": "gradient"}),
        *(Row(f"λ1 = {weight:g}", {"lambda_compactness": weight}) for weight in LAMBDAS),
        *(Row(f"λ3 = {weight:g}", {"lambda_distribution": weight}) for weight in LAMBDAS),
    ),
    against="FDRL",
)

if __name__ == "__main__":
    run(STUDY, __doc__)
