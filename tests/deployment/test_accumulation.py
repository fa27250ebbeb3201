"""Gradients of a batch from its parts, accumulated or by torch.func: what adds up, and what not."""

import copy
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from comparing import assert_close
from fdrl_layers import FDRLHead, FDRLOutput
from fdrl_layers.functional import fdrl_loss
from loss_cases import JOINT
from loss_shared import RULE, assert_close_state, head_of
from strategies import Sizes, normal

OF = Sizes(N=12, P=5, M=3, D=6, K=3)
PARTS = 6
NAMES = [field.name for field in fields(FDRLOutput)]
CENTERS = normal(OF.M, OF.D, seed=8), normal(OF.K, OF.M, seed=9)
TERMS = ("classification", "compactness", "distribution", "balance")


def batch(seed: int = 1) -> tuple[Tensor, Tensor]:
    # The shares of some samples lie above 1 / M, and those of others below it.
    return normal(OF.N, OF.P, seed=seed, scale=30.0), torch.arange(OF.N) % OF.K


def gradients_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("term", TERMS)
def test_which_terms_add_up(term: str) -> None:
    x, target = batch()
    once, parts = (head_of(OF, reduction="share") for _ in range(2))
    getattr(fdrl_loss(once(x), target, *CENTERS), term).backward()
    for x_part, target_part in zip(x.chunk(PARTS), target.chunk(PARTS), strict=True):
        loss = getattr(fdrl_loss(parts(x_part), target_part, *CENTERS), term)
        (loss / PARTS).backward()
    found, expected = gradients_of(parts), gradients_of(once)
    if term == "balance":
        intra = "reconstruction.intra.weight"
        assert not torch.allclose(found[intra], expected[intra], rtol=1e-3)
    else:
        assert_close(term, found, expected)


def in_two_passes(model: nn.Module, loss: nn.Module, xs: Sequence[Tensor], target: Tensor) -> None:
    """Accumulate the gradient of the joint batch: outputs first, then each part with a graph."""
    with torch.no_grad():
        outputs = [model(x) for x in xs]
    leaves = {n: torch.cat([getattr(o, n) for o in outputs]).requires_grad_() for n in NAMES}
    loss(FDRLOutput(**leaves), target).total.backward()
    wanted = ("logits", "latents", "intra_weights")
    sizes = [len(x) for x in xs]
    slices = zip(*(leaves[name].grad.split(sizes) for name in wanted), strict=True)  # type: ignore[union-attr]
    for x, gradients in zip(xs, slices, strict=True):
        output = model(x)
        torch.autograd.backward([getattr(output, name) for name in wanted], gradients)


@RULE
def test_two_passes_are_the_joint_batch(rule: str) -> None:
    losses = [JOINT.new(OF, center_update=rule) for _ in range(2)]
    once, parts = (head_of(OF, reduction="share") for _ in range(2))
    for seed in range(3):
        x, target = batch(seed)
        losses[0](once(x), target).total.backward()
        in_two_passes(parts, losses[1], x.chunk(PARTS), target)
    assert_close("gradient", gradients_of(parts), gradients_of(once))
    assert_close_state(losses[1].state_dict(), losses[0].state_dict())


# torch.func


def total(model: FDRLHead, state: Any, x: Tensor, target: Tensor, balance: float) -> Tensor:
    """The joint loss of a batch, or of one sample as a batch of one."""
    output = functional_call(model, state, (x.reshape(-1, OF.P),))
    weights: dict[str, Any] = {
        "lambda_compactness": 0.3,
        "lambda_balance": balance,
        "lambda_distribution": 0.2,
    }
    return fdrl_loss(output, target.reshape(-1), *CENTERS, **weights).total


@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_gradients_of_samples_average_to_that_of_the_batch_but_for_the_balance_loss(
    balance: float,
) -> None:
    model = head_of(OF, reduction="share")
    state = {name: p.detach() for name, p in model.named_parameters()}
    x, target = batch()
    loss = partial(total, model, balance=balance)
    each = vmap(grad(loss), (None, 0, 0))(state, x, target)
    mean, joint = {name: g.mean(0) for name, g in each.items()}, grad(loss)(state, x, target)
    if balance:
        intra = "reconstruction.intra.weight"
        assert not torch.allclose(mean[intra], joint[intra])
    else:
        assert_close("gradient", mean, joint)


def test_an_ensemble_is_its_members() -> None:
    members = [head_of(OF, seed, reduction="share") for seed in range(3)]
    state, buffers = stack_module_state(members)
    skeleton = copy.deepcopy(members[0]).to("meta")
    x = normal(OF.N, OF.P, seed=1)

    def one(state: Any, buffers: Any) -> FDRLOutput:
        output = functional_call(skeleton, (state, buffers), (x,))
        assert isinstance(output, FDRLOutput)
        return output

    together = vmap(one)(state, buffers)
    assert isinstance(together, FDRLOutput)
    for i, member in enumerate(members):
        for name in NAMES:
            assert_close(name, getattr(together, name)[i], getattr(member(x), name))
