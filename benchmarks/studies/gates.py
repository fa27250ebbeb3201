"""Where are the gates of Intra-W to start?

    python benchmarks/studies/gates.py --data DIR [--scale gpu] [--jobs 2]

As PyTorch's linear layers do, at one half, or where Intra-W is 1 / M, which the balance loss wants.
From random weights; gates_trained.py asks the same of a backbone that has been trained.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.studies.command import run
from benchmarks.studies.plan import LINEAR, Row, Study

UNIFORM = {"gate_init": "uniform"}


def starts(start: Row | None = None) -> tuple[Row, ...]:
    """Return a row for each reduction and start, from random weights or from another row's."""
    return tuple(
        Row(f"{reduction}, {said}", {"reduction": reduction, **changes}, start)
        for reduction in ("sum", "mean", "share")
        for said, changes in (("gates at 1 / 2", {}), ("Intra-W at 1 / M", UNIFORM))
    )


STUDY = Study(
    "gates", "Where are the gates of Intra-W to start?", (LINEAR, *starts()), against="linear"
)

if __name__ == "__main__":
    run(STUDY, __doc__)
