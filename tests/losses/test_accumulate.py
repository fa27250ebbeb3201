"""Parts of a batch move centers once, as the whole batch does, in every form."""

import copy
import io
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from comparing import assert_close
from devices import OF_KERNELS, each_of, marks_of
from fdrl_layers.losses import centers
from fdrl_layers.losses.joint import module as joint_loss
from fdrl_layers.ops import joint as operator
from loss_cases import (
    CENTERED,
    JOINT,
    LossCase,
    assert_same_state,
    gradients_of,
    labels,
    scalar,
    state_of,
    wanting,
)
from loss_shared import HARD, RULE, TARGET, assert_close_state
from strategies import Sizes

PARTS = (1, 2, 3)
"""Unlike sizes; with hard targets the first is ignored, and class 4 is in the last one alone."""


def parts_of(inputs: dict[str, Tensor], target: Tensor) -> list[tuple[dict[str, Tensor], Tensor]]:
    pieces = zip(*(value.split(PARTS) for value in (*inputs.values(), target)), strict=True)
    return [(dict(zip(inputs, values, strict=True)), label) for *values, label in pieces]


def in_parts(
    case: LossCase, loss: Any, inputs: dict[str, Tensor], target: Tensor
) -> list[dict[str, Tensor]]:
    before, found = state_of(loss), []
    with loss.accumulate():
        for part in parts_of(inputs, target):
            found.append(case.run(loss, *part))
            assert_same_state(state_of(loss), before)
    return found


@each_of(CENTERED)
@RULE
@TARGET
def test_centers_end_where_the_whole_batch_moves_them(
    case: LossCase, rule: str, target: Tensor
) -> None:
    loss, whole = (case.new(center_update=rule, center_rate=0.4) for _ in range(2))
    for seed in range(4):
        inputs = case.inputs(seed=seed)
        if seed < 3:
            in_parts(case, loss, inputs, target)
        else:
            case.run(loss, inputs, target)
        case.run(whole, inputs, target)
        assert_close_state(state_of(loss), state_of(whole))


@each_of(CENTERED[:-1])
@RULE
def test_parts_are_held_against_the_centers_as_they_were_or_their_own_mean(
    case: LossCase, rule: str
) -> None:
    target, inputs = HARD.clamp_min(0), case.inputs()
    loss, whole = (case.loaded(case.drawn_centers(), center_update=rule) for _ in range(2))
    losses = in_parts(case, loss, inputs, target)
    wanted = case.run(whole, inputs, target)["loss"]
    mean = sum(n * each["loss"] for n, each in zip(PARTS, losses, strict=True)) / len(target)
    assert_close("loss", mean, wanted)
    found = in_parts(case, case.new(center_update=rule), inputs, target)
    for each, part in zip(found, parts_of(inputs, target), strict=True):
        assert_close("loss without data", each, case.run(case.new(center_update=rule), *part))


@RULE
def test_the_joint_loss_stays_fused_and_gives_the_terms_of_its_single_losses(rule: str) -> None:
    fused, called = (JOINT.new(center_update=rule) for _ in range(2))
    called.balance.register_forward_hook(lambda *_: None)
    with mock.patch.object(joint_loss, "joint", wraps=operator.joint) as run:
        for seed in range(2):
            inputs = JOINT.inputs(seed=seed)
            found = in_parts(JOINT, fused, inputs, HARD)
            assert run.call_count == (seed + 1) * len(PARTS) * (rule != "gradient")
            wanted = in_parts(JOINT, called, inputs, HARD)
            for each, other in zip(found, wanted, strict=True):
                assert_close("terms", each, other)


@each_of(CENTERED)
@RULE
def test_gradients_reach_the_features_and_centers_that_are_parameters(
    case: LossCase, rule: str
) -> None:
    loss = case.loaded(case.drawn_centers(), center_update=rule)
    twin = copy.deepcopy(loss)
    inputs = wanting(case.inputs())
    with loss.accumulate():
        got = gradients_of(case.run(loss, inputs, HARD), inputs | dict(loss.named_parameters()))
    wanted = inputs | dict(twin.named_parameters())
    assert_close("gradient", got, gradients_of(case.run(twin, inputs, HARD), wanted))


def run_inside(case: LossCase, loss: Any, then: Callable[[], object]) -> None:
    with loss.accumulate():
        case.run(loss, case.inputs(), HARD)
        then()


@each_of(CENTERED)
@RULE
def test_exceptions_and_nesting_move_nothing(case: LossCase, rule: str) -> None:
    loss, undisturbed = (case.new(center_update=rule) for _ in range(2))
    with pytest.raises(ZeroDivisionError):
        run_inside(case, loss, lambda: 1 / 0)
    with pytest.raises(RuntimeError, match="`accumulate` must not be nested"):
        run_inside(case, loss, lambda: in_parts(case, loss, case.inputs(), HARD))
    assert_same_state(state_of(loss), state_of(undisturbed))
    for each in (loss, undisturbed):
        case.run(each, case.inputs(seed=1), HARD)
    assert_same_state(state_of(loss), state_of(undisturbed))


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
    with loss.accumulate():
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
@RULE
def test_backward_may_come_after_the_centers_moved(case: LossCase, rule: str) -> None:
    loss, twin = (case.new(center_update=rule) for _ in range(2))
    found = []
    for each, late in ((loss, True), (twin, False)):
        inputs = wanting(case.inputs())
        with each.accumulate():
            value = scalar(case.run(each, inputs, labels()))
            if not late:
                value.backward()
        if late:
            value.backward()
        found.append({name: input.grad for name, input in inputs.items()})
    assert_close("gradient", found[0], found[1])


@each_of(CENTERED)
def test_evaluation_adds_nothing(case: LossCase) -> None:
    loss, whole = case.new(), case.new()
    with loss.accumulate():
        case.run(loss, case.inputs(), HARD)
        case.run(loss.eval(), case.inputs(seed=1), HARD)
        loss.train()
    case.run(whole, case.inputs(), HARD)
    assert_close_state(state_of(loss), state_of(whole))
    before = state_of(loss)
    # Neither does it exchange anything, as it may run on one rank alone.
    with mock.patch.object(centers, "sum_over_ranks") as exchange, loss.eval().accumulate():
        case.run(loss, case.inputs(seed=1), HARD)
    exchange.assert_not_called()
    assert_same_state(state_of(loss), before)


@pytest.mark.compile
@RULE
def test_parts_may_be_compiled(rule: str, fresh_compiler: None) -> None:
    loss, whole = (JOINT.new(center_update=rule) for _ in range(2))
    compiled: Any = torch.compile(loss, fullgraph=True, backend="aot_eager", dynamic=True)
    for seed in range(2):
        inputs = JOINT.inputs(seed=seed)
        with loss.accumulate():
            for rows in (slice(0, 2), slice(2, 4), slice(4, 6)):
                part = {name: value[rows] for name, value in inputs.items()}
                compiled(*JOINT.arguments(part, HARD[rows]))
        JOINT.run(whole, inputs, HARD)
        assert_close_state(state_of(loss), state_of(whole))


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
        inputs = case.inputs(of, seed, dtype=torch.float32)
        in_parts(case, loss, inputs, target)
        case.run(whole, inputs, target)
        assert_close_state(state_of(loss), state_of(whole), torch.float32)
