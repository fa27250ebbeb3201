"""Select the runs to train, order them, and train them within a time limit."""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

from benchmarks.studies.plan import Row
from benchmarks.studies.store import STUDIES, TrainedRun, load_runs, save_run
from benchmarks.studies.train import run_folder, train


@dataclass(frozen=True)
class Place:
    """The scale, data, folders and device of runs."""

    scale: str
    data: Path | None
    runs: Path
    device: str
    results: Path = STUDIES

    def is_trained(self, row: Row, seed: int) -> bool:
        """Return whether a run has ended, so that other runs can start from its weights."""
        return (run_folder(row, self.scale, seed, self.runs) / "summary.json").is_file()


@dataclass(frozen=True)
class Job:
    """A run to train.

    Attributes:
        row: Its settings.
        seed: Seed of weights, order and crops.
        study: The study that requires it.
        is_start: Whether it is trained only so that others can start from it or to be measured. A
            stored result is then kept, because other processors give slightly different results.
    """

    row: Row
    seed: int
    study: str
    is_start: bool = False


def plan_jobs(
    study: str, rows: Iterable[Row], seeds: Sequence[int], place: Place, *, again: bool = False
) -> list[Job]:
    """Return the missing runs of a study in the order in which to train them.

    The first seed of all rows comes before the second of any, so that the rows of a stopped study
    can be compared. A run comes after the run that it starts from.
    """
    known = load_runs(place.scale, place.results)
    wanted = (Job(row, seed, study) for seed in seeds for row in rows)
    return add_missing_starts(
        (job for job in wanted if again or (job.row.key(place.scale), job.seed) not in known),
        place,
    )


def add_missing_starts(jobs: Iterable[Job], place: Place) -> list[Job]:
    """Return jobs without duplicates, each after the run that it starts from if that is missing."""
    found: dict[tuple[str, int], Job] = {}

    def add(job: Job) -> None:
        key = (job.row.key(place.scale), job.seed)
        if key in found:
            if found[key].is_start:
                found[key] = job
            return
        start = job.row.start
        if start is not None and not place.is_trained(start, job.seed):
            add(Job(start, job.seed, job.study, is_start=True))
        found[key] = job

    for job in jobs:
        add(job)
    return list(found.values())


def train_all(
    jobs: Sequence[Job], place: Place, *, num_workers: int = 1, minutes: float | None = None
) -> list[Job]:
    """Train jobs in order, write each result when its run ends, and return the remaining jobs.

    Args:
        jobs: Jobs in the order of `plan_jobs`.
        place: Where to train.
        num_workers: Number of concurrent runs.
        minutes: No run starts that would end after this time if it took as long as the longest yet.
    """
    ends = None if minutes is None else time.monotonic() + 60 * minutes
    left, longest = list(jobs), 0.0
    with _workers(num_workers) as workers:
        running: dict[Future[TrainedRun], Job] = {}
        failed: BaseException | None = None
        while True:
            late = failed is not None
            late = late or (ends is not None and time.monotonic() + longest >= ends)
            for job in [] if late else _select_ready(left, running.values(), place):
                if len(running) == num_workers:
                    break
                left.remove(job)
                work = (job.row, place.scale, job.seed, place.data, place.runs, place.device)
                running[workers.submit(train, *work)] = job
            if not running:
                if failed is not None:
                    raise failed
                return left
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                # If a run fails, the concurrent runs finish and their results are stored.
                failed = failed or future.exception()
                if future.exception() is not None:
                    continue
                run = future.result()
                longest = max(longest, run.seconds)
                known = load_runs(place.scale, place.results)
                if not job.is_start or (run.key, run.seed) not in known:
                    save_run(run, job.study, place.results)
                print(_describe(job, run), flush=True)


def _select_ready(left: Sequence[Job], running: Iterable[Job], place: Place) -> Iterator[Job]:
    """Yield the jobs whose start is neither running nor waiting."""
    unfinished = {(job.row.key(place.scale), job.seed) for job in (*left, *running)}
    for job in list(left):
        start = job.row.start
        if start is None or (start.key(place.scale), job.seed) not in unfinished:
            yield job


def _describe(job: Job, run: TrainedRun) -> str:
    scores = ", ".join(f"{split} {found['accuracy']:.2f} %" for split, found in run.scores.items())
    return f"{job.row.label}, seed {run.seed}: {scores}, {run.seconds:.0f} s"


class _ThisProcess(Executor):
    """An executor that runs each call immediately in this process."""

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        future: Future[object] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def _workers(count: int) -> Executor:
    if count == 1:
        return _ThisProcess()
    threads = max(1, (os.cpu_count() or 1) // count)
    return ProcessPoolExecutor(count, get_context("spawn"), torch.set_num_threads, (threads,))
