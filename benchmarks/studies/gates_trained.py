"""Where are the gates of Intra-W to start on a trained backbone?

    python benchmarks/studies/gates_trained.py --data DIR [--scale gpu] [--jobs 2]

Every row starts from the backbone that the baseline of the same seed has trained, as in stages.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.studies.command import run
from benchmarks.studies.gates import starts
from benchmarks.studies.plan import LINEAR, Study
from benchmarks.studies.stages import LINEAR_AGAIN

STUDY = Study(
    "gates_trained",
    "Where are the gates of Intra-W to start on a trained backbone?",
    (LINEAR_AGAIN, *starts(LINEAR)),
    against="linear",
)

if __name__ == "__main__":
    run(STUDY, __doc__)
