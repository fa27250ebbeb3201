"""Run studies of FDRL on real faces: train the missing runs and print the results.

    python -m benchmarks.studies                                  # which studies there are
    python -m benchmarks.studies parts --data DIR --jobs 2
    python -m benchmarks.studies parts --data DIR --rows "+ FDN" --seeds 1 --again
    python -m benchmarks.studies full votes --data DIR --scale gpu --jobs 8 --minutes 8
    python -m benchmarks.studies all --data DIR

A study may be stopped and started again. Each result is written to benchmarks/results/ when its
run ends, and a stopped run is resumed.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.studies import meaning
from benchmarks.studies.plan import SCALES
from benchmarks.studies.questions import STUDIES, find_study
from benchmarks.studies.schedule import Place, add_missing_starts, plan_jobs, train_all
from benchmarks.studies.store import STUDIES as RESULTS
from benchmarks.studies.tables import as_markdown
from fer.training.stopping import Stopped

NAMES = (*(study.name for study in STUDIES), meaning.NAME)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = make_parser()
    given = parser.parse_args(arguments)
    if given.jobs < 1:
        parser.error(f"--jobs must be at least 1, got {given.jobs}")
    if given.minutes is not None and not 0 < given.minutes < float("inf"):
        parser.error(f"--minutes must be above 0 and finite, got {given.minutes}")
    if not given.names:
        if given.rows is not None or given.seeds is not None or given.data is not None:
            parser.error("NAME is needed, in front of the options")
        print(list_studies())
        return
    names = NAMES if given.names == ["all"] else tuple(dict.fromkeys(given.names))
    if unknown := [name for name in names if name not in NAMES]:
        parser.error(
            f"NAME must be of {', '.join(NAMES)}, or all by itself; got {', '.join(unknown)}"
        )
    if given.data is None:
        parser.error("--data DIR is needed: the folder of FER+")
    if given.rows is not None and (len(names) > 1 or names == (meaning.NAME,)):
        parser.error("--rows needs the name of one study with rows")
    place = Place(given.scale, given.data, given.runs, given.device, given.results)
    seeds = given.seeds or list(range(SCALES[given.scale].seeds))
    jobs = []
    for name in names:
        if name == meaning.NAME:
            jobs += meaning.plan_jobs(seeds, place)
            continue
        try:
            rows = find_study(name).select_rows(given.rows)
        except ValueError as error:
            parser.error(str(error))
        jobs += plan_jobs(name, rows, seeds, place, again=given.again)
    jobs = add_missing_starts(jobs, place)
    try:
        left = train_all(jobs, place, num_workers=given.jobs, minutes=given.minutes)
    except (KeyboardInterrupt, Stopped):
        sys.exit("stopped; the same command goes on from here")
    for name in names:
        if name != meaning.NAME:
            print(f"\n{as_markdown(find_study(name), place.scale, place.results)}")
    if left:
        print(f"--minutes {given.minutes:g} are over; {len(left)} runs are left")
    elif meaning.NAME in names:
        meaning.measure_seeds(seeds, place)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cuda = torch.cuda.is_available()
    parser.add_argument("names", nargs="*", metavar="NAME", help="of studies, or all")
    parser.add_argument("--data", type=Path, metavar="DIR", help="where FER+ lies")
    parser.add_argument("--scale", choices=tuple(SCALES), default="gpu" if cuda else "cpu")
    parser.add_argument("--rows", nargs="+", metavar="LABEL", help="only these of a study")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="only these")
    parser.add_argument("--again", action="store_true", help="repeat what has been done")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time")
    parser.add_argument(
        "--minutes", type=float, metavar="X",
        help="begin no run that would end later, by the longest so far; the studies in the order "
        "given, a first seed of each row before a second",
    )  # fmt: skip
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--runs", type=Path, default=Path("runs/studies"), help="where to train")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results go")
    return parser


def list_studies() -> str:
    """Return the name, the question and the rows of each study."""
    entries = [
        f"{study.name}: {study.question} {study.notes}".rstrip()
        + "".join(f"\n    {row.label}" for row in study.rows)
        for study in STUDIES
    ]
    return "\n".join([*entries, f"{meaning.NAME}: {meaning.QUESTION}"])


if __name__ == "__main__":
    main()
