"""Answer every question about FDRL on real faces: all studies, one after the other.

    python benchmarks/studies/everything.py --data DIR [--scale gpu] [--jobs 2]

Trains what is missing, so that it may be stopped and begun again.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.studies import (
    attachment,
    baseline,
    centers,
    departures,
    features,
    few,
    finer,
    full,
    gates,
    gates_trained,
    latents,
    longer,
    meaning,
    parts,
    pretraining,
    recipe,
    reduction,
    remedies,
    stages,
    width,
)
from benchmarks.studies.command import parser_of, run

STUDIES = tuple(
    each.STUDY
    for each in (
        *(full, recipe, baseline, parts, longer, few, reduction, stages, gates, gates_trained),
        *(features, centers, latents, departures, width, attachment, finer, pretraining, remedies),
    )
)
"""Those that are a table of rows; `meaning` is not, and comes last."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all studies with the same command line."""
    # What one study alone can be told is refused now, and not by the last of them after a day.
    parser_of(__doc__ or "").parse_args(arguments)
    for study in STUDIES:
        run(study, __doc__ or "", arguments)
    meaning.main(arguments)


if __name__ == "__main__":
    main()
