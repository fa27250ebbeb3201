"""Is Intra-W a sum, a mean or a share, and how heavy is the balance loss to be?

    python benchmarks/studies/reduction.py --data DIR [--scale gpu] [--jobs 2]

Each from random weights and from the backbone that the baseline of the same seed has trained.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.studies.command import run
from benchmarks.studies.plan import LINEAR, Row, Study

LAMBDAS = (0.0, 0.001, 0.01, 0.1, 1.0)


def rows(start: Row | None) -> tuple[Row, ...]:
    """Return the grid, each from random weights or from a trained backbone."""
    after = "" if start is None else f", after {start.label}"
    return tuple(
        Row(f"{reduction}, λ2 = {weight:g}{after}", changes, start)
        for reduction in ("sum", "mean", "share")
        for weight in LAMBDAS
        for changes in [{"reduction": reduction, "lambda_balance": weight}]
    )


STUDY = Study(
    "reduction",
    "Is Intra-W a sum, a mean or a share?",
    (
        LINEAR,
        *rows(None),
        Row("linear, after linear", {"head": "linear"}, LINEAR),
        *rows(LINEAR),
    ),
    against="linear",
)

if __name__ == "__main__":
    run(STUDY, __doc__)
