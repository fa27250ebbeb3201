"""The command of every study: train what is missing, and say what came of it."""

import argparse
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch

from benchmarks.studies.plan import SCALES, Row, Study
from benchmarks.studies.store import STUDIES, Trained, path_of, write
from benchmarks.studies.tables import as_markdown
from benchmarks.studies.train import folder_of, train


def parser_of(description: str) -> argparse.ArgumentParser:
    """Return a parser for what every study can be told."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="where FER+ lies")
    parser.add_argument(
        "--scale", choices=tuple(SCALES), default="gpu" if torch.cuda.is_available() else "cpu"
    )
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="only these")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--runs", type=Path, default=Path("runs/studies"), help="where to train")
    parser.add_argument("--results", type=Path, default=STUDIES, help="where results go")
    return parser


def run(study: Study, description: str, arguments: Sequence[str] | None = None) -> None:
    """Run a study's command line."""
    parser = parser_of(description)
    parser.add_argument("--rows", nargs="+", metavar="LABEL", help="only these")
    parser.add_argument("--again", action="store_true", help="repeat what has been done")
    said = parser.parse_args(arguments)
    try:
        rows = study.chosen(said.rows)
    except ValueError as error:
        parser.error(str(error))
    seeds = said.seeds or list(range(SCALES[said.scale].seeds))
    wanted = {
        (row.key(said.scale), seed): row
        for row in rows
        for seed in seeds
        if said.again or not path_of(row, said.scale, seed, said.results).is_file()
    }
    for generation in generations(wanted, said):
        train_all(generation, said)
    print(f"\n{as_markdown(study, said.scale, said.results)}")


Jobs = dict[tuple[str, int], Row]
"""Rows to be trained, by their key and the seed."""


def generations(wanted: Jobs, said: argparse.Namespace) -> list[Jobs]:
    """Return what is to be trained first, then what starts from that, and so on."""
    found = [wanted]
    while missing := {
        (row.start.key(said.scale), seed): row.start
        for (_, seed), row in found[0].items()
        if row.start is not None
        and not (folder_of(row.start, said.scale, seed, said.runs) / "summary.json").is_file()
    }:
        # What others start from is trained once, though it may be wanted for itself too.
        rest = [{job: row for job, row in each.items() if job not in missing} for each in found]
        found = [missing, *rest]
    return found


def train_all(jobs: Jobs, said: argparse.Namespace) -> None:
    """Train rows, side by side if asked to, and write each result as it comes."""
    # A seed is finished before the next is begun, so that a study that is stopped can be compared.
    order = sorted(jobs.items(), key=lambda item: item[0][::-1])
    asked = [
        (row, partial(train, row, said.scale, seed, said.data, said.runs, device=said.device))
        for (_, seed), row in order
    ]
    if said.jobs == 1:
        for row, work in asked:
            keep(row, work(), said)
        return
    threads = max(1, (os.cpu_count() or 1) // said.jobs)
    with ProcessPoolExecutor(
        said.jobs, get_context("spawn"), torch.set_num_threads, (threads,)
    ) as pool:
        rows = {pool.submit(work): row for row, work in asked}
        for future in as_completed(rows):
            keep(rows[future], future.result(), said)


def keep(row: Row, trained: Trained, said: argparse.Namespace) -> None:
    """Write a result, and say what it is."""
    write(path_of(row, said.scale, trained.seed, said.results), trained)
    scores = ", ".join(
        f"{split} {found['accuracy']:.2f} %" for split, found in trained.scores.items()
    )
    print(f"{row.label}, seed {trained.seed}: {scores}, {trained.seconds:.0f} s", flush=True)
