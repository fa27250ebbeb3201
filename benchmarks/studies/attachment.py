"""What makes FDRL help? Changes that are ours, beside the same changes of the baseline.

    python benchmarks/studies/attachment.py --data DIR [--scale gpu] [--jobs 2]

Batch normalization of what the last layer predicts from; latents that pool the maps by an attention
of their own, or by a maximum; a balance loss that is warmed up over half of the training. From
random weights; stages.py and finer.py have heads on maps of a backbone that has been trained.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.studies.command import run
from benchmarks.studies.plan import AS_PRINTED, FDRL, LINEAR, Row, Study

NORM = {"batch_norm": True}
WARMED_UP = {"balance_warmup": 0.5}

STUDY = Study(
    "attachment",
    "What makes FDRL help?",
    (
        LINEAR,
        Row("linear, normalized", {"head": "linear", **NORM}),
        Row("plain, normalized", {"head": "plain", **NORM}),
        FDRL,
        Row("FDRL, normalized", NORM),
        Row("FDRL, normalized, attention", {**NORM, "attach": "attention"}),
        Row("FDRL, normalized, places", {**NORM, "attach": "places"}),
        Row("FDRL, λ2 warmed up", WARMED_UP),
        Row("FDRL as printed, λ2 warmed up", {**AS_PRINTED.changes, **WARMED_UP}),
    ),
    against="linear",
)

if __name__ == "__main__":
    run(STUDY, __doc__)
