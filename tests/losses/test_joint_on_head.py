"""The joint loss on what a head gives: training, compiled and exported."""

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from comparing import assert_close
from fdrl_layers import FDRLHead, FDRLLossOutput
from loss_cases import JOINT, RULES, SMALL, labels, state_of
from strategies import normal, parameters_for

BATCHES = (11, 8, 11)
"""Unlike any other size, so that a compiled step takes them for an axis of their own."""

Step = Callable[[FDRLHead, nn.Module, Tensor, Tensor], FDRLLossOutput]


def head(*, intra: bool = True, inter: bool = True) -> FDRLHead:
    model = FDRLHead(
        SMALL.P,
        SMALL.K,
        latent_dim=SMALL.D,
        num_latents=SMALL.M,
        intra=intra,
        inter=inter,
        dtype=torch.float64,
    )
    model.load_state_dict(parameters_for(SMALL, 0, intra=intra, inter=inter))
    return model


def features(batch: int = SMALL.N, seed: int = 0) -> Tensor:
    return normal(batch, SMALL.P, seed=seed)


@pytest.mark.parametrize("parts", [{}, {"intra": False}, {"inter": False}], ids=str)
def test_takes_what_a_head_gives(parts: dict[str, bool]) -> None:
    model, loss = head(**parts), JOINT.new()
    output = model(features())
    found = loss(output, labels())
    assert isinstance(found, FDRLLossOutput)
    found.total.backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    assert all(grad is not None and grad.isfinite().all() for grad in grads.values())
    used = {name: vars(output)[name].detach() for name in JOINT.axes}
    expected = JOINT.run(JOINT.new(), used, labels())
    assert_close("losses", vars(found), expected)


def test_rejects_a_head_without_a_prediction_layer() -> None:
    output = FDRLHead(SMALL.P, 0, latent_dim=SMALL.D, num_latents=SMALL.M)(features().float())
    match = r"`output\.logits` must have shape \(N, K\) with K = 5, got \(6, 0\)"
    with pytest.raises(ValueError, match=match):
        JOINT.new()(output, labels())


def train(model: FDRLHead, loss: nn.Module, step: Step) -> Iterator[dict[str, Tensor]]:
    """Steps of SGD; the losses, gradients and centers of each."""
    optimizer = torch.optim.SGD([*model.parameters(), *loss.parameters()], lr=0.1)
    for seed, batch in enumerate(BATCHES):
        optimizer.zero_grad()
        found = step(model, loss, features(batch, seed), torch.arange(batch) % 4)
        found.total.backward()
        named = [*model.named_parameters(), *loss.named_parameters()]
        gradients = {f"d {name}": p.grad.clone() for name, p in named if p.grad is not None}
        optimizer.step()
        state = {name: value.double() for name, value in state_of(loss).items()}
        yield vars(found) | gradients | state


def loss_of(model: FDRLHead, loss: nn.Module, input: Tensor, target: Tensor) -> FDRLLossOutput:
    found = loss(model(input), target)
    assert isinstance(found, FDRLLossOutput)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.usefixtures("fresh_compiler")
def test_compiles_with_the_head(rule: str) -> None:
    model, loss = head(), JOINT.new(center_update=rule)
    step = torch.compile(loss_of, fullgraph=True, dynamic=True, backend="aot_eager")
    expected = list(train(copy.deepcopy(model), copy.deepcopy(loss), loss_of))
    actual = train(model, loss, step)
    assert_close("the first step", next(actual), expected[0])
    with torch.compiler.set_stance("fail_on_recompile"):
        for number, found in enumerate(actual, start=1):
            assert_close(f"step {number}", found, expected[number])


def test_exports_in_evaluation() -> None:
    class Losses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.loss = head(), JOINT.new()

        def forward(self, input: Tensor, target: Tensor) -> FDRLLossOutput:
            found = self.loss(self.head(input), target)
            assert isinstance(found, FDRLLossOutput)
            return found

    module = Losses()
    module(features(), labels())
    module.eval()
    batch = torch.export.Dim("N")
    program = torch.export.export(
        module, (features(), labels()), dynamic_shapes=({0: batch}, {0: batch})
    )
    target = torch.arange(9) % 4
    found = program.module()(features(9, 3), target)
    assert_close("losses", vars(found), vars(module(features(9, 3), target)))
