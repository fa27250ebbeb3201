"""A training step under torch.compile, and a whole model as an exported program."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("torchvision")

from comparing import assert_close
from deploying import check_batches, images, named
from fdrl_layers import FDRLHead, FDRLLoss, FDRLOutput


def step(model: nn.Module, loss: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    total: Tensor = loss(model(x), target).total
    return total


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
def test_a_training_step_compiles_in_one_graph() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        conv = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        head = FDRLHead(8, 7, latent_dim=6, num_latents=3, reduction="mean")
    model = nn.Sequential(conv, pool, head).double()
    loss = FDRLLoss(7, latent_dim=6, num_latents=3, dtype=torch.float64)
    compiled = torch.compile(step, fullgraph=True, dynamic=True, backend="aot_eager")
    runs = []
    for run in (step, compiled):
        trained, criterion = copy.deepcopy((model, loss))
        found = []
        for number in (4, 6, 11):
            x = images(number, seed=number, dtype=torch.float64)
            trained.zero_grad()
            total = run(trained, criterion, x, torch.arange(number) % 7)
            total.backward()
            named_parameters = trained.named_parameters()
            gradients = {f"d {n}": p.grad for n, p in named_parameters if p.grad is not None}
            state = {**trained.state_dict(), **criterion.state_dict()}
            state = {name: value.double().clone() for name, value in state.items()}
            found.append({"loss": total.detach(), **state, **gradients})
        runs.append(found)
    for number, (expected, actual) in enumerate(zip(*runs, strict=True)):
        assert_close(f"step {number}", actual, expected)


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "not strict"])
def test_an_exported_program_computes_the_same_through_a_file(
    model: nn.Sequential, tmp_path: Path, strict: bool
) -> None:
    batch = torch.export.Dim("N", max=1024)
    program = torch.export.export(model, (images(4),), dynamic_shapes=({0: batch},), strict=strict)
    torch.export.save(program, tmp_path / "model.pt2")
    if strict and torch.__version__ < (2, 7):  # type: ignore[operator]
        pytest.skip("torch 2.6 cannot read back what its strict export of a ResNet wrote")
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    assert isinstance(loaded(images(2)), FDRLOutput)
    check_batches("torch.export", lambda x: named(loaded(x)), model, images)
