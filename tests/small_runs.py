"""Runs of the examples that take a second: a small backbone, small faces, a small head."""

import csv
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from tqdm import tqdm

import fer_rafdb
from fer.model import build as model, checkpoint
from fer.options import Options
from fer.training.batches import TrainingBatches
from fer.training.graph import GraphedStep
from fer.training.ranks import Ranks
from fer.training.rates import make_capturable
from fer.training.run import Run, build_run, open_run

ALONE = Ranks(0, 1, torch.device("cpu"))
SMALL: dict[str, Any] = {"faces": 40, "image_size": 24, "batch_size": 8, "epochs": 2}
SMALL |= {"num_latents": 3, "latent_dim": 8, "device": "cpu"}
COMMAND = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
"""The same, said on a command line."""

OF_THE_CLOCK = ("seconds", "images_per_second", "waiting")
"""Columns of a run's history that no two runs share."""


class SmallBackbone(nn.Module):
    """Stands in for a ResNet-18: maps, two batch normalizations and a feature of 512 numbers."""

    def __init__(self, weights: object = None) -> None:
        super().__init__()
        first, second = nn.Conv2d(3, 6, 3, 3, bias=False), nn.Conv2d(6, 512, 3, 2, bias=False)
        self.first = nn.Sequential(first, nn.BatchNorm2d(6), nn.ReLU())
        self.second = nn.Sequential(second, nn.BatchNorm2d(512), nn.ReLU())
        self.fc: nn.Module = nn.Linear(512, 1000)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.fc(self.second(self.first(images)).mean((2, 3)))
        return found


def use_small_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fer.model.build.resnet18", SmallBackbone)


def options_of(**changes: Any) -> Options:
    return Options(**SMALL | changes)


def make_run(**changes: Any) -> Run:
    return build_run(options_of(**changes), ALONE)


def start_run(folder: Path, **changes: Any) -> Run:
    """Begin a run in a new folder, or go on with what it holds; with `buffers`, over buffers."""
    buffers = changes.pop("buffers", False)
    options = options_of(**changes)
    if not folder.exists():
        folder.mkdir()
        checkpoint.write_json(folder / "config.json", options.to_dict())
    run = open_run(options, folder, ALONE, quiet=True)
    return use_graph_buffers(run) if buffers else run


def train_run(folder: Path, **changes: Any) -> Run:
    run = start_run(folder, **changes)
    run.train(quiet=True)
    return run


def make_stopped_run(folder: Path, count: int, **changes: Any) -> Run:
    """Begin, take some steps of the first epoch, and keep what there is."""
    run = start_run(folder, **changes)
    take_steps(run, count)
    run.save()
    return run


def take_steps(run: Run, count: int, epoch: int = 1) -> None:
    run.progress.lr = float(run.schedule.get_last_lr()[0])
    run.model.train()
    batches = TrainingBatches(run.faces, run.options, epoch, run.ranks)
    for _, _ in zip(range(count), run.take_steps(batches), strict=False):
        pass


def run_command(arguments: Sequence[str], output: Path) -> None:
    """Run fer_rafdb.py on the small backbone, in a process that was made for it."""
    torch.set_num_threads(1)
    # Its own lock is one of processes, which a killed one leaves behind.
    tqdm.set_lock(threading.RLock())
    setattr(model, "resnet18", SmallBackbone)  # noqa: B010 (torchvision has no types)
    with output.open("w", buffering=1) as file:
        sys.stdout = sys.stderr = file
        fer_rafdb.main(arguments)


def refuses(match: str, *arguments: str) -> None:
    with pytest.raises(SystemExit, match=match):
        fer_rafdb.main(arguments)


def batch_of(run: Run) -> tuple[Tensor, Tensor, Tensor]:
    """Return the first batch of a run's first epoch."""
    batches = TrainingBatches(run.faces, run.options, 1, run.ranks)
    return next(iter(batches.iterate_from(0)))


def read_stored(folder: Path, name: str = "last.pt") -> dict[str, Any]:
    """Return a checkpoint without what the clock says."""
    content = checkpoint.read_checkpoint(folder / name)
    content["history"] = [without_clock(row) for row in content["history"]]
    content.pop("progress", None)
    return content


def read_outputs(folder: Path) -> dict[str, Any]:
    """Return all that a run leaves, without what the clock says."""
    summary = checkpoint.read_json(folder / "summary.json")
    return {
        **{name: read_stored(folder, name) for name in ("last.pt", "best.pt")},
        "evaluation": torch.load(folder / "evaluation.pt", weights_only=True),
        "summary": {name: without_clock(summary[name]) for name in ("last", "best")},
        "metrics": [without_clock(row) for row in read_metrics(folder)],
        "files": sorted(path.name for path in folder.iterdir()),
    }


def read_metrics(folder: Path) -> list[dict[str, str]]:
    path = folder / "metrics.csv"
    return list(csv.DictReader(path.read_text().splitlines())) if path.is_file() else []


def without_clock(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in OF_THE_CLOCK}


def same_runs(folder: Path, *others: Path) -> None:
    for other in others:
        assert_same(read_stored(other), read_stored(folder))


def assert_same(got: Any, want: Any, name: str = "") -> None:
    """Compare nested plain values and tensors bit for bit."""
    if isinstance(want, Tensor):
        assert torch.equal(got, want), name
    elif isinstance(want, dict):
        assert got.keys() == want.keys(), name
        for key in want:
            assert_same(got[key], want[key], f"{name}.{key}")
    elif isinstance(want, list | tuple):
        assert_same(dict(enumerate(got)), dict(enumerate(want)), name)
    else:
        assert got == want, name


def use_graph_buffers(run: Run) -> Run:
    """Let a run take its steps as a graph holds them; without a GPU nothing is captured."""
    run.graph = GraphedStep(run)
    make_capturable(run.adam, run.ranks.device)
    return run
