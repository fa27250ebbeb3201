"""Which recipe suits the baseline? What `plan.py` has is chosen by the valid column of this table.

python benchmarks/studies/recipe.py --data DIR [--scale gpu] [--jobs 2]
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.studies.command import run
from benchmarks.studies.plan import LINEAR, Row, Study


def changed(label: str, **changes: object) -> Row:
    """Return the baseline with another recipe."""
    return Row(label, {**LINEAR.changes, **changes})


STUDY = Study(
    "recipe",
    "Which recipe suits the baseline?",
    (
        LINEAR,
        *(changed(f"rate {rate:g}", lr=rate) for rate in (1e-3, 2e-3, 1e-2)),
        changed("weight decay 0.05", weight_decay=0.05),
        changed("label smoothing 0.1", label_smoothing=0.1),
        changed("averaged weights", ema=0.99),
        changed("more augmentation", augment="strong"),
    ),
    against="linear",
)

if __name__ == "__main__":
    run(STUDY, __doc__)
