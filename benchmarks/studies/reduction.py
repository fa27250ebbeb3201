"""Is Intra-W a sum, a mean or a share, and how heavy is the balance loss to be?

    python benchmarks/studies/reduction.py --data DIR [--scale gpu] [--jobs 2]

From random weights; stages.py asks the same of a backbone that has been trained.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.studies.command import run
from benchmarks.studies.plan import LINEAR, Row, Study

LAMBDAS = (0.0, 0.001, 0.01, 0.1, 1.0)


def grid(start: Row | None = None) -> tuple[Row, ...]:
    """Return a row for each reduction and weight, from random weights or from another row's."""
    return tuple(
        Row(f"{reduction}, λ2 = {weight:g}", changes, start)
        for reduction in ("sum", "mean", "share")
        for weight in LAMBDAS
        for changes in [{"reduction": reduction, "lambda_balance": weight}]
    )


STUDY = Study(
    "reduction", "Is Intra-W a sum, a mean or a share?", (LINEAR, *grid()), against="linear"
)

if __name__ == "__main__":
    run(STUDY, __doc__)
