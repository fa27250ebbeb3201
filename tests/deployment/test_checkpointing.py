"""Activation checkpointing computes a head twice; a loss must be computed once."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fdrl_layers import FDRLLoss, FDRLOutput
from loss_cases import JOINT, assert_same_state
from loss_shared import model_of
from strategies import Sizes, normal

OF = Sizes(N=6, P=5, M=3, D=6, K=2)
TARGET = torch.tensor([0, 1, 1, 0, 1, 0])


def parts() -> tuple[nn.Sequential, FDRLLoss]:
    return model_of(OF).float(), JOINT.new(OF, torch.float32)


def again(function: nn.Module, *arguments: object) -> Any:
    return checkpoint(function, *arguments, use_reentrant=False)


def steps(model: nn.Module, loss: FDRLLoss, how: str) -> dict[str, Tensor]:
    """Gradients and centers after three batches."""
    for seed in range(3):
        x = normal(OF.N, 3, seed=seed, dtype=torch.float32)
        output = model(x) if how == "plain" else again(model, x)
        assert isinstance(output, FDRLOutput)
        losses = again(loss, output, TARGET) if how == "model and loss" else loss(output, TARGET)
        losses.total.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {**gradients, **loss.state_dict()}


def test_a_checkpointed_model_trains_bit_for_bit_as_a_plain_one() -> None:
    model, loss = parts()
    expected = steps(*copy.deepcopy((model, loss)), "plain")
    assert_same_state(steps(model, loss, "model"), expected)


def test_a_checkpointed_loss_would_move_its_centers_twice() -> None:
    # Or torch notices that the second time is not as the first. Either way: not around the loss.
    model, loss = parts()
    expected = steps(*copy.deepcopy((model, loss)), "plain")
    try:
        found = steps(model, loss, "model and loss")
    except torch.utils.checkpoint.CheckpointError:
        return
    centers = "compactness.centers.value"
    assert not torch.allclose(found[centers], expected[centers])


@pytest.mark.parametrize("how", ["plain", "model"])
def test_what_a_step_remembers(how: str) -> None:
    model, _ = parts()
    kept = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += 0 if isinstance(tensor, nn.Parameter) else tensor.numel()
        return tensor

    x = normal(OF.N, 3, seed=0, dtype=torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        model(x) if how == "plain" else again(model, x)
    # Latents and what the relations make of them, or next to nothing.
    assert (kept > OF.N * OF.M * OF.D) == (how == "plain")
