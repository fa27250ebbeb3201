"""What does each departure of the public implementation from the paper cost?

    python benchmarks/studies/departures.py --data DIR [--scale gpu] [--jobs 2]

Its balance loss is the paper's times the 64 samples of a batch, its centers stay where a normal
distribution put them, and equation 11 mixes messages where the paper has intra-aware features. Its
best setting of λ2, 0.001, comes to 0.064.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.studies.command import run
from benchmarks.studies.plan import AS_PRINTED, FDRL, Row, Study

FROZEN = {"center_update": "frozen"}
MESSAGES = {"self_feature": "message"}

STUDY = Study(
    "departures",
    "What do the departures of the public implementation cost?",
    (
        FDRL,
        Row("balance loss times 64", {"lambda_balance": 64.0}),
        Row("frozen centers", FROZEN),
        Row("messages in equation 11", MESSAGES),
        Row("all three", {"lambda_balance": 64.0, **FROZEN, **MESSAGES}),
        AS_PRINTED,
        Row(
            "the public implementation",
            {"reduction": "sum", "lambda_balance": 0.064, **FROZEN, **MESSAGES},
        ),
    ),
    against="FDRL",
)

if __name__ == "__main__":
    run(STUDY, __doc__)
