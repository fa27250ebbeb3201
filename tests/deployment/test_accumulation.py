"""Gradient accumulation: which terms are means over samples, and how to have the others exactly."""

from collections.abc import Sequence
from dataclasses import fields

import pytest
import torch
from torch import Tensor, nn

from comparing import assert_close
from fdrl_layers import FDRLOutput
from fdrl_layers.functional import fdrl_loss
from loss_cases import JOINT
from loss_shared import RULE, assert_close_state, head_of
from strategies import Sizes, normal

OF = Sizes(N=12, P=5, M=3, D=6, K=3)
PARTS = 6
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
    names = [field.name for field in fields(FDRLOutput)]
    leaves = {n: torch.cat([getattr(o, n) for o in outputs]).requires_grad_() for n in names}
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
