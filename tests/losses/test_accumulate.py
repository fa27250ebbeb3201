"""Parts of a batch move centers once, as the whole batch does, in every form."""

import copy
import io
import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from comparing import assert_close
from devices import OF_KERNELS, each_of, marks_of
from fdrl_layers import CenterLoss, CompactnessLoss, DistributionLoss, FDRLLoss
from fdrl_layers.losses import centers
from fdrl_layers.losses.joint import module as joint_loss
from fdrl_layers.ops import joint as operator
from loss_cases import CENTERED, JOINT, RULES, SMALL, LossCase, assert_same_state, scalar, state_of
from strategies import IGNORE_INDEX, Sizes, normal

RULE = pytest.mark.parametrize("rule", RULES)
# Class 3 is absent, 4 is in the last part alone, and the first part is ignored.
HARD = torch.tensor([IGNORE_INDEX, 1, 0, 0, 2, 4])
TARGETS = {"hard": HARD, "all counted": HARD.clamp_min(0), "soft": normal(6, 5, seed=9).softmax(1)}
TARGET = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
PARTS = (1, 2, 3)


def accumulate(loss: nn.Module) -> AbstractContextManager[None]:
    assert isinstance(loss, CompactnessLoss | DistributionLoss | CenterLoss | FDRLLoss)
    return loss.accumulate()


def in_parts(
    case: LossCase, loss: nn.Module, inputs: dict[str, Tensor], target: Tensor
) -> list[dict[str, Tensor]]:
    """Give a loss a batch in parts of unlike sizes."""
    pieces = zip(*(value.split(PARTS) for value in inputs.values()), strict=True)
    labels = target.split(PARTS)
    before = state_of(loss)
    found = []
    with accumulate(loss):
        for piece, label in zip(pieces, labels, strict=True):
            found.append(case.run(loss, dict(zip(inputs, piece, strict=True)), label))
            assert_same_state(state_of(loss), before)
    return found


def assert_close_states(loss: nn.Module, other: nn.Module, dtype: torch.dtype) -> None:
    wanted = state_of(other)
    for name, value in state_of(loss).items():
        if value.dtype == torch.bool:
            assert torch.equal(value, wanted[name]), name
        else:
            assert_close(name, value, wanted[name], dtype)


@each_of(CENTERED)
@RULE
@TARGET
def test_centers_end_where_the_whole_batch_moves_them(
    case: LossCase, rule: str, target: Tensor
) -> None:
    loss, whole = (case.new(center_update=rule, center_rate=0.4) for _ in range(2))
    for seed in range(3):
        inputs = case.inputs(seed=seed)
        in_parts(case, loss, inputs, target)
        case.run(whole, inputs, target)
        assert_close_states(loss, whole, torch.float64)
    case.run(loss, case.inputs(seed=9), target)
    case.run(whole, case.inputs(seed=9), target)
    assert_close_states(loss, whole, torch.float64)


@each_of([each for each in CENTERED if each.loss is not FDRLLoss])
@RULE
def test_all_parts_are_held_against_the_centers_as_they_were(case: LossCase, rule: str) -> None:
    loss, whole = (case.loaded(case.drawn_centers(), center_update=rule) for _ in range(2))
    target, inputs = HARD.clamp_min(0), case.inputs()
    losses = in_parts(case, loss, inputs, target)
    wanted = case.run(whole, inputs, target)["loss"]
    mean = sum(n * each["loss"] for n, each in zip(PARTS, losses, strict=True)) / SMALL.N
    assert_close("loss", mean, wanted)


@each_of([each for each in CENTERED if each.loss is not FDRLLoss])
@RULE
def test_what_has_met_no_data_is_held_against_the_mean_of_each_part(
    case: LossCase, rule: str
) -> None:
    target, inputs = HARD.clamp_min(0), case.inputs()
    found = in_parts(case, case.new(center_update=rule), inputs, target)
    pieces = zip(*(value.split(PARTS) for value in inputs.values()), strict=True)
    for each, piece, label in zip(found, pieces, target.split(PARTS), strict=True):
        alone = case.new(center_update=rule)
        assert_close("loss", each, case.run(alone, dict(zip(inputs, piece, strict=True)), label))


@RULE
def test_the_joint_loss_gives_the_terms_of_its_single_losses(rule: str) -> None:
    fused, called = (JOINT.new(center_update=rule) for _ in range(2))
    assert isinstance(called, FDRLLoss)
    called.balance.register_forward_hook(lambda *_: None)
    for seed in range(2):
        inputs = JOINT.inputs(seed=seed)
        found = in_parts(JOINT, fused, inputs, HARD)
        wanted = in_parts(JOINT, called, inputs, HARD)
        for each, other in zip(found, wanted, strict=True):
            assert_close("terms", each, other)


def test_the_joint_loss_stays_fused() -> None:
    loss = JOINT.new()
    with mock.patch.object(joint_loss, "joint", wraps=operator.joint) as fused:
        in_parts(JOINT, loss, JOINT.inputs(), HARD)
    assert fused.call_count == len(PARTS)


def gradients_in(case: LossCase, loss: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
    found = scalar(case.run(loss, inputs, HARD))
    return torch.autograd.grad(found, [*inputs.values(), *loss.parameters()])


@each_of(CENTERED)
@RULE
def test_gradients_reach_the_features_and_centers_that_are_parameters(
    case: LossCase, rule: str
) -> None:
    loss = case.loaded(case.drawn_centers(), center_update=rule)
    twin = copy.deepcopy(loss)
    inputs = {k: v.requires_grad_() for k, v in case.inputs().items()}
    wanted = gradients_in(case, twin, inputs)
    with accumulate(loss):
        got = gradients_in(case, loss, inputs)
    for ours, theirs in zip(got, wanted, strict=True):
        assert_close("gradient", ours, theirs)


class StoppedError(Exception):
    """On purpose."""


def stop() -> None:
    raise StoppedError


def run_inside(case: LossCase, loss: nn.Module, then: Callable[[], object]) -> None:
    """Give a loss a part of a batch, and do something else before it is whole."""
    with accumulate(loss):
        case.run(loss, case.inputs(), HARD)
        then()


@each_of(CENTERED)
@RULE
def test_an_exception_moves_nothing(case: LossCase, rule: str) -> None:
    loss, undisturbed = (case.new(center_update=rule) for _ in range(2))
    with pytest.raises(StoppedError):
        run_inside(case, loss, stop)
    assert_same_state(state_of(loss), state_of(undisturbed))
    for each in (loss, undisturbed):
        case.run(each, case.inputs(seed=1), HARD)
    assert_same_state(state_of(loss), state_of(undisturbed))


@each_of(CENTERED)
def test_nesting_is_an_error_and_moves_nothing(case: LossCase) -> None:
    loss = case.new()
    before = state_of(loss)
    with pytest.raises(RuntimeError, match="`accumulate` must not be nested"):
        run_inside(case, loss, lambda: in_parts(case, loss, case.inputs(), HARD))
    assert_same_state(state_of(loss), before)


@each_of(CENTERED)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")], ids=str)
@RULE
def test_a_part_that_is_not_finite_moves_nothing(case: LossCase, rule: str, bad: float) -> None:
    loss = case.new(center_update=rule)
    in_parts(case, loss, case.inputs(), HARD)
    before = state_of(loss)
    inputs = case.inputs(seed=1)
    for name in {each.follows for each in case.centers}:
        inputs[name].view(-1)[-1] = bad
    in_parts(case, loss, inputs, HARD)
    assert_same_state(state_of(loss), before)
    in_parts(case, loss, case.inputs(seed=2), HARD)
    assert all(value.isfinite().all() for value in state_of(loss).values())


@each_of(CENTERED)
def test_copies_have_only_what_has_been_moved(case: LossCase) -> None:
    loss, whole = case.new(), case.new()
    before = state_of(loss)
    file = io.BytesIO()
    with accumulate(loss):
        case.run(loss, case.inputs(), HARD)
        torch.save(loss.state_dict(), file)
        copies = [copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))]
    file.seek(0)
    assert_same_state(torch.load(file), before)
    case.run(whole, case.inputs(seed=1), HARD)
    for each in copies:
        assert_same_state(state_of(each), before)
        case.run(each, case.inputs(seed=1), HARD)
        assert_same_state(state_of(each), state_of(whole))


@each_of(CENTERED)
def test_evaluation_adds_nothing(case: LossCase) -> None:
    loss, whole = case.new(), case.new()
    with accumulate(loss):
        case.run(loss, case.inputs(), HARD)
        case.run(loss.eval(), case.inputs(seed=1), HARD)
        loss.train()
    case.run(whole, case.inputs(), HARD)
    assert_close_states(loss, whole, torch.float64)
    before = state_of(loss)
    # Neither does it exchange anything, as it may run on one rank alone.
    with mock.patch.object(centers, "sum_over_ranks") as exchange, accumulate(loss.eval()):
        case.run(loss, case.inputs(seed=1), HARD)
    exchange.assert_not_called()
    assert_same_state(state_of(loss), before)


@pytest.mark.compile
@RULE
def test_parts_may_be_compiled(rule: str, fresh_compiler: None) -> None:
    loss, whole = (JOINT.new(center_update=rule) for _ in range(2))
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager", dynamic=True)
    for seed in range(2):
        inputs = JOINT.inputs(seed=seed)
        with accumulate(loss):
            for rows in (slice(0, 2), slice(2, 4), slice(4, 6)):
                part = {name: value[rows] for name, value in inputs.items()}
                compiled(*JOINT.arguments(part, HARD[rows]))
        JOINT.run(whole, inputs, HARD)
        assert_close_states(loss, whole, torch.float64)


@pytest.mark.parametrize("form", ["torch", pytest.param("triton", marks=marks_of(OF_KERNELS))])
@pytest.mark.parametrize("rule", ["alpha", "ema"])
def test_the_fused_forms(form: str, rule: str) -> None:
    if form == "triton":
        pytest.importorskip("triton")
    of, case = Sizes(N=6, P=1, M=3, D=32, K=5), replace(JOINT, device=OF_KERNELS)
    loss, whole = (
        case.new(of, torch.float32, center_update=rule, backend=each) for each in (form, "torch")
    )
    target = HARD.to(OF_KERNELS)
    for seed in range(2):
        inputs = {name: value.float() for name, value in case.inputs(of, seed).items()}
        in_parts(case, loss, inputs, target)
        case.run(whole, inputs, target)
        assert_close_states(loss, whole, torch.float32)
