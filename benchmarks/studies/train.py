"""Train a row with a seed, using the training code of the examples, and return the result."""

import shutil
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks.machine import describe
from benchmarks.studies.plan import Row
from benchmarks.studies.store import TrainedRun
from fer.evaluation.predictions import read_evaluation
from fer.evaluation.summary import find_best_epoch
from fer.model import checkpoint
from fer.options import Options
from fer.training.ranks import Ranks
from fer.training.run import RESUME_STATE, Run, open_run

TEST_COLUMNS = ("test_accuracy", "test_mean_class_accuracy")
"""Columns that the history omits: no choice depends on them, so they are reported once."""


def make_options(row: Row, scale: str, seed: int, data: Path | None, runs: Path) -> Options:
    """Return the options of the run of a row with a seed."""
    settings = {**row.settings(scale), "seed": seed}
    if settings["dataset"] != "synthetic":
        settings["data"] = str(data)
    if row.start is not None:
        settings["backbone_weights"] = str(run_folder(row.start, scale, seed, runs) / "last.pt")
    return Options(**settings)


def run_folder(row: Row, scale: str, seed: int, runs: Path) -> Path:
    """Return the folder in which a row is trained."""
    return runs / scale / f"{row.key(scale)}-seed{seed}"


def train(
    row: Row,
    scale: str,
    seed: int,
    data: Path | None,
    runs: Path,
    device: str,
) -> TrainedRun:
    """Train a row or resume its run, and return the result.

    Its folder keeps the weights, so that other runs can start from them, but no optimizer state.
    """
    options = make_options(row, scale, seed, data, runs)
    folder = run_folder(row, scale, seed, runs)
    if (folder / "summary.json").is_file():
        shutil.rmtree(folder)
    if not folder.is_dir():
        folder.mkdir(parents=True)
        checkpoint.write_json(folder / "config.json", options.to_dict())
    ranks = Ranks(0, 1, torch.device(device))
    with checkpoint.lock_folder(folder):
        run = open_run(options, folder, ranks, quiet=True)
        run.train(quiet=True)
        (folder / "best.pt").unlink(missing_ok=True)
        ended = checkpoint.read_checkpoint(folder / "last.pt")
        slim = {name: value for name, value in ended.items() if name not in RESUME_STATE}
        checkpoint.write_checkpoint(folder / "last.pt", slim)
    return collect_result(run, row, scale, seed)


def collect_result(run: Run, row: Row, scale: str, seed: int) -> TrainedRun:
    """Return the results of a run that has ended."""
    last, options = run.history[-1], run.options.to_dict()
    del options["data"]
    options["backbone_weights"] = None if row.start is None else row.start.key(scale)
    scores = {
        split: {score: last[f"{split}_{score}"] for score in ("accuracy", "mean_class_accuracy")}
        for split in ("valid", "test")
        if f"{split}_accuracy" in last
    }
    scores["test"]["best_epoch_on_valid"] = find_best_epoch(run.history)["test_accuracy"]
    history = [
        {name: value for name, value in epoch.items() if name not in TEST_COLUMNS}
        for epoch in run.history
    ]
    evaluation = read_evaluation(run.folder / "evaluation.pt").evaluation
    spread = evaluation.intra_spread() if run.options.intra else None
    return TrainedRun(
        key=row.key(scale),
        scale=scale,
        seed=seed,
        options=options,
        faces=run.database.sizes,
        history=history,
        scores=scores,
        confusion=evaluation.scores.confusion.tolist(),
        classes=list(run.database.classes),
        seconds=sum(epoch["seconds"] for epoch in run.history),
        date=datetime.now(UTC).date().isoformat(),
        machine=describe(run.ranks.device.type),
        intra_spread=None if spread is None else asdict(spread),
    )
