"""A training step under torch.compile, and a whole model as an exported program."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("torchvision")

from comparing import assert_close
from deploying import check_batches, images, named, whole_model
from fdrl_layers import FDRLHead, FDRLLossOutput, FDRLOutput
from loss_cases import JOINT
from loss_shared import RULE
from strategies import Sizes

Found = dict[str, Tensor]


def step(model: nn.Module, loss: nn.Module, x: Tensor, target: Tensor) -> FDRLLossOutput:
    found: FDRLLossOutput = loss(model(x), target)
    return found


def train(model: nn.Module, loss: nn.Module, run: Callable[..., Any]) -> Iterator[Found]:
    """Steps of SGD; the losses, gradients and state of each."""
    modules = nn.ModuleList([model, loss])
    optimizer = torch.optim.SGD(modules.parameters(), lr=0.1)
    for number in (11, 9, 13):  # unlike any other size, so that it is an axis of its own
        optimizer.zero_grad()
        x = images(number, seed=number, dtype=torch.float64)
        found = run(model, loss, x, torch.arange(number) % 7)
        found.total.backward()
        named = modules.named_parameters()
        gradients = {f"d {n}": p.grad.clone() for n, p in named if p.grad is not None}
        optimizer.step()
        state = {n: v.double().clone() for n, v in modules.state_dict().items()}
        yield {**vars(found), **gradients, **state}


@pytest.mark.slow
@RULE
@pytest.mark.usefixtures("fresh_compiler")
def test_training_steps_compile_in_one_graph(rule: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        conv = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        head = FDRLHead(8, 7, latent_dim=6, num_latents=3, reduction="mean")
    model = nn.Sequential(conv, pool, head).double()
    loss = JOINT.new(Sizes(N=1, P=8, M=3, D=6, K=7), center_update=rule)
    expected = list(train(*copy.deepcopy((model, loss)), step))
    compiled = torch.compile(step, fullgraph=True, dynamic=True, backend="aot_eager")
    actual = train(model, loss, compiled)
    assert_close("the first step", next(actual), expected[0])
    with torch.compiler.set_stance("fail_on_recompile"):
        for number, found in enumerate(actual, start=1):
            assert_close(f"step {number}", found, expected[number])


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "not strict"])
def test_an_exported_program_computes_the_same_through_a_file(tmp_path: Path, strict: bool) -> None:
    model = whole_model()
    batch = torch.export.Dim("N", max=1024)
    program = torch.export.export(model, (images(4),), dynamic_shapes=({0: batch},), strict=strict)
    torch.export.save(program, tmp_path / "model.pt2")
    if strict and torch.__version__ < (2, 7):  # type: ignore[operator]
        pytest.skip("torch 2.6 cannot read back what its strict export of a ResNet wrote")
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    assert isinstance(loaded(images(2)), FDRLOutput)
    check_batches("torch.export", lambda x: named(loaded(x)), model, images)
