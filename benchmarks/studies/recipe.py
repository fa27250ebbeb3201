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
        *(changed(f"rate {rate:g}", lr=rate) for rate in (1e-3, 2e-3, 5e-3, 1e-2)),
        *(changed(f"weight decay {decay:g}", weight_decay=decay) for decay in (0.0, 0.05)),
        *(changed(f"label smoothing {s:g}", label_smoothing=s) for s in (0.0, 0.1)),
        changed("no average of weights", ema=None),
        changed("average of weights", ema=0.99),
        *(changed(f"{augment} augmentation", augment=augment) for augment in ("paper", "strong")),
        *(changed(f"{stem} stem", small_stem=stem == "small") for stem in ("small", "large")),
    ),
    against="linear",
)

if __name__ == "__main__":
    run(STUDY, __doc__)
