"""Two processes with half of each batch train the model that one process trains."""

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torchvision.models import resnet18

from fer.model import build as model
from fer.training.batches import TrainingBatches
from fer.training.ranks import Ranks as Joined
from fer.training.run import Run, build_run
from ranks import SIZE, Ranks
from small_runs import SmallBackbone, options_of

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(280)]

# Fifty steps. An epoch, which is a call, must be over within a minute on a busy machine too, and so
# the large backbone takes fewer.
RUN = {"faces": 80, "batch_size": 16, "epochs": 10, "sync_batch_norm": True}
TEN_STEPS = {"faces": 32, "epochs": 5}

# Half of float32's spacing at 1. Everything is computed in float64, so that what fifty steps make
# of rounding stays below it. In float32 it would not: batch normalization over few numbers, and
# Adam, which divides by the root of tiny second moments, turn a gradient's last bit into a visible
# part of a step, and a tolerance that admits this would admit a wrong gradient too.
CLOSE = 2**-24

RUNS: dict[str, Run] = {}
"""In each process, the runs that are under way."""


def train_an_epoch(
    rank: int, world: int, name: str, changes: dict[str, Any], epoch: int
) -> list[dict[str, float]]:
    """Take an epoch's steps in float64; return their losses, averaged over processes."""
    backbone = resnet18 if name == "resnet18" else SmallBackbone
    torch.set_default_dtype(torch.float64)
    try:
        if name not in RUNS:
            joined = Joined(rank, world, torch.device("cpu"))
            with mock.patch.object(model, "resnet18", backbone):
                RUNS[name] = build_run(options_of(**RUN | changes), joined)
        run = RUNS[name]
        if run.options.accumulate > 1:
            # Batch normalization sees parts, which are other ones on two processes.
            run.model[0].eval()
        steps = []
        for images, *rest in TrainingBatches(run.faces, run.options, epoch, run.ranks).iterate_from(
            0
        ):
            every = run.ranks.gather(run.step(images.double(), *rest))
            steps.append({key: sum(float(each[key]) for each in every) / world for key in every[0]})
        return steps
    finally:
        torch.set_default_dtype(torch.float32)


def epoch_on(rank: int, *arguments: Any) -> list[dict[str, float]]:
    return train_an_epoch(rank, SIZE, *arguments)


def state_of(name: str) -> dict[str, Tensor]:
    """Return weights, running statistics, centers and the optimizer's moments; forget the run."""
    run = RUNS.pop(name)
    moments = {
        f"adam.{index}.{key}": value
        for index, each in enumerate(run.adam.state.values())
        for key, value in each.items()
    }
    return {**run.model.state_dict(), **run.criterion.state_dict(), **moments}


def keep_state(rank: int, name: str, folder: str) -> None:
    torch.save(state_of(name), Path(folder, f"rank{rank}.pt"))


def distance(got: Tensor, want: Tensor) -> float:
    largest = float(want.double().abs().max())
    return float((got.double() - want.double()).abs().max()) / (largest or 1.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("resnet18", TEN_STEPS),
        ("small", {}),
        ("small with gradient centers and clipping", {"center_update": "gradient", "clip": 0.5}),
        ("small in parts", {"accumulate": 2}),
        ("small with the baseline", {"head": "linear"}),
        ("small with the sum of equation 4", {"reduction": "sum", "schedule": "steps", "lr": 1e-4}),
    ],
)
def test_two_processes_train_what_one_does(
    name: str, changes: dict[str, Any], ranks: Ranks, tmp_path: Path
) -> None:
    got, want = [], []
    options = options_of(**RUN | changes)
    for epoch in range(1, options.epochs + 1):
        first, second = ranks.run(epoch_on, name, changes, epoch)
        assert first == second
        got += first
        want += train_an_epoch(0, 1, name, changes, epoch)
    assert len(got) == len(want) == options.epochs * (options.faces // options.batch_size)
    for a, b in zip(got, want, strict=True):
        assert a == pytest.approx(b, rel=CLOSE)

    ranks.run(keep_state, name, str(tmp_path))
    states = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(SIZE)]
    for key, value in state_of(name).items():
        assert distance(states[0][key], value) <= CLOSE, key
        assert torch.equal(states[0][key], states[1][key]), key


def average_on(rank: int) -> Tensor:
    """Average gradients that lie in memory channel by channel, as --channels-last has them."""
    weight = torch.nn.Parameter(torch.zeros(2, 3, 2, 2))
    gradient = torch.arange(24.0).view(2, 3, 2, 2) * (rank + 1)
    weight.grad = gradient.contiguous(memory_format=torch.channels_last)
    Joined(rank, SIZE, torch.device("cpu")).average_gradients([weight])
    return weight.grad.contiguous()


def test_gradients_are_averaged_whatever_their_order_in_memory(ranks: Ranks) -> None:
    for found in ranks.run(average_on):
        assert torch.equal(found, torch.arange(24.0).view(2, 3, 2, 2) * 1.5)
