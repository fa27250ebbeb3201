"""What do heads make of the same features?

    python benchmarks/studies/features.py --data DIR [--scale gpu] [--jobs 2]

Every row trains a head alone, on the features of the backbone that the baseline of the same seed
has trained. What differs is what a head reads from features, and not how features come about.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.studies.command import run
from benchmarks.studies.plan import LINEAR, Row, Study


def on_features(label: str, **changes: object) -> Row:
    """Return a head on the baseline's backbone, which stays as it is."""
    return Row(label, {"freeze_backbone": True, **changes}, LINEAR)


STUDY = Study(
    "features",
    "What do heads make of the same features?",
    (
        on_features("linear", head="linear"),
        on_features("plain, as many parameters", head="plain"),
        on_features("+ FDN", intra=False, inter=False),
        on_features("FDRL"),
        on_features("FDRL, share", reduction="share"),
        on_features("FDRL as printed", reduction="sum"),
        on_features("FDRL, λ2 = 0", lambda_balance=0.0),
    ),
    against="linear",
)

if __name__ == "__main__":
    run(STUDY, __doc__)
