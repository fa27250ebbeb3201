"""A batch that is not finite moves no center, in any form; its loss says so."""

from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from devices import OF_KERNELS, each_of
from fdrl_layers import FDRLHead, FDRLLoss
from loss_cases import CENTERED, COMPACTNESS, JOINT, LossCase, assert_same_state, state_of
from loss_shared import HARD, RULE, TARGET, assert_close_state
from strategies import Sizes, normal

BAD = pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")], ids=str)
FIRST = pytest.mark.parametrize("first", [True, False], ids=["first batch", "later"])


def spoiled(inputs: dict[str, Tensor], bad: float) -> dict[str, Tensor]:
    """The same batch with one number of the last sample that is not finite, in all it holds."""
    found = {name: value.clone() for name, value in inputs.items()}
    for name in found.keys() - {"logits"}:  # which no center follows
        found[name].view(-1)[-1] = bad
    return found


@each_of(CENTERED)
@RULE
@TARGET
@BAD
@FIRST
@pytest.mark.parametrize("readable", [True, False], ids=["readable", "as on a GPU"])
def test_no_center_moves(
    case: LossCase, rule: str, target: Tensor, bad: float, first: bool, readable: bool
) -> None:
    loss, undisturbed = (case.new(center_update=rule) for _ in range(2))
    # On the CPU the host reads whether the sums are finite; elsewhere it must not wait.
    fused, single = "fdrl_layers.ops.eager.joint._readable", "fdrl_layers.losses.centers.readable"
    with mock.patch(fused, return_value=readable), mock.patch(single, return_value=readable):
        if not first:
            for each in (loss, undisturbed):
                case.run(each, case.inputs(seed=3), target)
        before = state_of(loss)
        found = case.run(loss, spoiled(case.inputs(), bad), target)
        assert_same_state(state_of(loss), before)
        good = [case.run(each, case.inputs(seed=1), target) for each in (loss, undisturbed)]
    assert not any(value.isfinite() for name, value in found.items() if name != "classification")
    assert_same_state(good[0], good[1])
    assert_same_state(state_of(loss), state_of(undisturbed))
    assert all(value.isfinite().all() for value in state_of(loss).values())


@each_of(CENTERED)
def test_overflow_of_the_squares_counts_as_not_finite(case: LossCase) -> None:
    # Of float32: a number, whose square is none.
    loss = case.new(dtype=torch.float32)
    inputs = case.inputs(dtype=torch.float32)
    case.run(loss, inputs, HARD)
    before = state_of(loss)
    case.run(loss, spoiled(inputs, 1e25), HARD)
    assert_same_state(state_of(loss), before)


def test_overflow_of_the_centers_own_type_counts_as_not_finite() -> None:
    loss = COMPACTNESS.new(dtype=torch.float16)
    loss(1e6 * COMPACTNESS.inputs()["latents"].float())
    assert not any(value.any() for value in state_of(loss).values())


def test_each_loss_decides_by_what_its_centers_follow() -> None:
    fused, inputs = JOINT.new(), JOINT.inputs()
    inputs["latents"][0, 0, 0] = float("nan")
    JOINT.run(fused, inputs, HARD)
    assert not fused.compactness.centers.seen.any()
    assert fused.distribution.centers.seen.tolist() == [True, True, True, False, True]
    inputs = JOINT.inputs(seed=1)
    inputs["logits"][0, 0] = float("inf")
    JOINT.run(fused, inputs, HARD)
    assert fused.compactness.centers.seen.all()


@pytest.mark.compile
@RULE
def test_no_center_moves_in_a_compiled_step(rule: str, fresh_compiler: None) -> None:
    loss = JOINT.new(center_update=rule)
    compiled: Any = torch.compile(loss, fullgraph=True, backend="aot_eager")
    compiled(*JOINT.arguments(JOINT.inputs(), HARD))
    before = state_of(loss)
    compiled(*JOINT.arguments(spoiled(JOINT.inputs(seed=1), float("nan")), HARD))
    assert_same_state(state_of(loss), before)
    assert before["compactness.centers.seen"].all()


def train(steps: int, bad: int | None, rule: Any) -> tuple[nn.Module, FDRLLoss, float]:
    """Train in float16 with a scaler; the features of step `bad` overflow."""
    torch.manual_seed(0)
    head = FDRLHead(8, 5, latent_dim=8, num_latents=3, reduction="mean")
    loss = FDRLLoss(5, num_latents=3, latent_dim=8, center_update=rule, lambda_compactness=0.1)
    optimizer = torch.optim.SGD([*head.parameters(), *loss.parameters()], lr=0.05)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=1000)
    for step in range(steps):
        seed = step - (bad is not None and step > bad)
        features = normal(6, 8, seed=seed, scale=1e5 if step == bad else 1.0, dtype=torch.float32)
        with torch.autocast("cpu", torch.float16):
            losses = loss(head(features.half().float()), HARD.clamp_min(0))
        optimizer.zero_grad()
        scaler.scale(losses.total).backward()
        scaler.step(optimizer)
        scaler.update()
    return head, loss, scaler.get_scale()


@RULE
@pytest.mark.parametrize("bad", [0, 2])
def test_a_training_in_float16_goes_on_after_a_step_that_the_scaler_skips(
    rule: str, bad: int
) -> None:
    head, loss, scale = train(6, bad, rule)
    same_head, same_loss, same_scale = train(5, None, rule)
    assert scale == same_scale / 2
    for module, other in ((head, same_head), (loss, same_loss)):
        # The scale is a power of 2, and changes the gradients that underflow alone.
        assert_close_state(module.state_dict(), other.state_dict(), torch.float16)
        assert all(value.isfinite().all() for value in module.state_dict().values())


OF = Sizes(N=6, P=1, M=3, D=32, K=5)


# Triton's interpreter multiplies by NumPy, which says so.
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@FIRST
@BAD
def test_the_kernels_move_no_center(bad: float, first: bool) -> None:
    pytest.importorskip("triton")
    kernels, eager = (
        JOINT.new(OF, torch.float32, backend=backend, device=OF_KERNELS)
        for backend in ("triton", "torch")
    )

    def run(loss: Any, inputs: dict[str, Tensor]) -> Tensor:
        placed = {name: value.to(OF_KERNELS, torch.float32) for name, value in inputs.items()}
        return JOINT.run(loss, placed, HARD.to(OF_KERNELS))["total"]

    for loss in (kernels, eager):
        if not first:
            run(loss, JOINT.inputs(OF, 3))
        before = state_of(loss)
        assert not run(loss, spoiled(JOINT.inputs(OF), bad)).isfinite()
        assert_same_state(state_of(loss), before)
        run(loss, JOINT.inputs(OF, 1))
    assert_close_state(state_of(kernels), state_of(eager), torch.float32)
