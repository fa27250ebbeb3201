"""What is the same for every loss: the oracle, its twin, the types and the laws."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import fdrl_layers
from comparing import assert_close
from devices import each_of, everywhere
from gradients import gradients
from loss_cases import (
    CASES,
    CENTERED,
    JOINT,
    LABELED,
    RULES,
    SMALL,
    LossCase,
    assert_same_state,
    each_target_of,
    targets,
    wanting,
)
from loss_shared import HALF, RULE, TargetOf
from strategies import PAPER, Sizes, scales, seeds, sizes

EMPTY = Sizes(N=0, P=2, M=3, D=4, K=5)


def test_every_public_loss_is_a_case() -> None:
    public = {name for name in fdrl_layers.__all__ if name.endswith("Loss")}
    assert public == {case.name for case in CASES}


@each_of(everywhere(CASES))
@given(data=st.data(), of=sizes(), seed=seeds(), scale=scales())
def test_matches_oracle_and_is_not_negative(
    case: LossCase, data: st.DataObject, of: Sizes, seed: int, scale: float
) -> None:
    inputs, target = case.inputs(of, seed, scale), data.draw(targets(of)).to(case.device)
    centers = case.drawn_centers(of, seed, scale)
    found = case.apply(inputs, target, centers)
    # A cross-entropy near 0 is what remains of logits of this size.
    assert_close(case.name, found, case.expect(inputs, target, centers), scale=scale)
    assert all(value.item() >= 0 for value in found.values())


@each_target_of(everywhere(CASES))
@pytest.mark.parametrize("of", [SMALL, PAPER], ids=["small", "paper"])
def test_function_and_module_match_oracle(case: LossCase, target_of: TargetOf, of: Sizes) -> None:
    inputs, centers, target = case.inputs(of), case.drawn_centers(of), target_of(of)
    found = case.apply(inputs, target, centers)
    assert_close(case.name, found, case.expect(inputs, target, centers))
    assert_same_state(case.run(case.loaded(centers, of).eval(), inputs, target), found)


@each_target_of(everywhere(CASES))
@pytest.mark.parametrize(
    ("check", "of"), [(gradcheck, SMALL), (gradgradcheck, Sizes(N=3, P=1, M=2, D=1, K=3))]
)
def test_derivatives(
    case: LossCase, target_of: TargetOf, check: Callable[..., bool], of: Sizes
) -> None:
    inputs, centers = wanting(case.inputs(of)), wanting(case.drawn_centers(of))

    def loss(*values: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(inputs, values, strict=False))
        held = dict(zip(centers, values[len(inputs) :], strict=True))
        return tuple(case.apply(given, target_of(of), held).values())

    assert check(loss, (*inputs.values(), *centers.values()))


def narrowed(target: Tensor) -> Tensor:
    return target.float() if target.is_floating_point() else target


@each_target_of(everywhere(CASES))
@HALF
def test_is_computed_in_float32(case: LossCase, target_of: TargetOf, dtype: torch.dtype) -> None:
    # Inputs are rounded before, so that the row of float32 holds: nothing more may be rounded.
    inputs, target = case.inputs(scale=100, dtype=dtype), narrowed(target_of())
    centers = {name: value.to(dtype) for name, value in case.drawn_centers(scale=100).items()}
    expected = case.expect(inputs, target, centers)
    module = case.loaded(centers, dtype=dtype).eval()
    for actual in (case.apply(inputs, target, centers), case.run(module, inputs, target)):
        assert {value.dtype for value in actual.values()} == {torch.float32}
        assert_close(case.name, actual, expected)


@each_target_of(everywhere(CASES))
@RULE
def test_is_computed_in_float32_under_autocast(
    case: LossCase, target_of: TargetOf, rule: str
) -> None:
    plain, cast = (case.new(dtype=torch.float32, center_update=rule) for _ in range(2))
    for seed in range(3):
        target = narrowed(target_of(seed=seed))
        inputs = case.inputs(seed=seed, scale=100, dtype=torch.float32)
        expected = case.run(plain, inputs, target)
        with torch.autocast(case.device, torch.bfloat16):
            assert_same_state(case.run(cast, inputs, target), expected)
    assert_same_state(cast.state_dict(), plain.state_dict())


@each_target_of(everywhere(CASES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_is_finite_at_any_scale(
    case: LossCase, target_of: TargetOf, dtype: torch.dtype, scale: float
) -> None:
    inputs = wanting(case.inputs(scale=scale, dtype=dtype))
    loss, target = case.new(dtype=dtype), target_of()
    for seed in range(2):  # at the start and after it
        outputs = case.run(loss, inputs, target)
        found = {**outputs, **loss.state_dict(), **gradients(outputs, inputs, seed)}
        assert all(value.isfinite().all() for value in found.values())


@each_target_of(everywhere(CASES))
@RULE
def test_an_empty_batch_is_zero_and_no_start(
    case: LossCase, target_of: TargetOf, rule: str
) -> None:
    loss, inputs = case.new(EMPTY, center_update=rule), wanting(case.inputs(EMPTY))
    outputs = case.run(loss, inputs, target_of(EMPTY))
    assert all(value.item() == 0 for value in outputs.values())
    assert gradients(outputs, inputs).keys() == inputs.keys()
    assert_same_state(loss.state_dict(), case.new(EMPTY, center_update=rule).state_dict())


@each_of(everywhere(LABELED))
@RULE
def test_a_batch_without_labels_is_zero_and_no_start(case: LossCase, rule: str) -> None:
    loss, inputs = case.new(center_update=rule), wanting(case.inputs())
    outputs = case.run(loss, inputs, torch.full((SMALL.N,), -100, device=case.device))
    labeled = {n: v for n, v in outputs.items() if n in ("loss", "classification", "distribution")}
    assert all(value.item() == 0 for value in labeled.values())
    assert not any(value.any() for value in gradients(labeled, inputs).values())
    prefix = case.centers[-1].prefix
    assert not any(v.any() for key, v in loss.state_dict().items() if key.startswith(prefix))


@each_target_of(everywhere(CASES))
def test_takes_any_memory_layout(case: LossCase, target_of: TargetOf) -> None:
    centers, target = case.drawn_centers(), target_of()
    inputs = {name: value[:1].expand_as(value) for name, value in case.inputs().items()}
    dense = {name: value.contiguous() for name, value in inputs.items()}
    turned = {name: v.transpose(0, -1).contiguous().transpose(0, -1) for name, v in dense.items()}
    function, module = case.apply(dense, target, centers), case.run(case.new(), dense, target)
    for given_as in (inputs, turned):
        assert_close(case.name, case.apply(given_as, target, centers), function)
        assert_close(case.name, case.run(case.new(), given_as, target), module)


@each_target_of(everywhere(CASES))
@pytest.mark.usefixtures("deterministic")
def test_is_deterministic_and_draws_no_numbers(case: LossCase, target_of: TargetOf) -> None:
    inputs, target, before = wanting(case.inputs()), target_of(), torch.get_rng_state()
    losses = case.new(), case.new()
    for seed in range(2):
        once, again = (gradients(case.run(loss, inputs, target), inputs, seed) for loss in losses)
        assert_same_state(again, once)
    assert_same_state(losses[1].state_dict(), losses[0].state_dict())
    assert torch.equal(torch.get_rng_state(), before)


@each_of(CENTERED)
@given(of=sizes(), seed=seeds(), scale=scales(), rule=st.sampled_from(RULES))
def test_law_it_is_exactly_zero_at_the_centers(
    case: LossCase, of: Sizes, seed: int, scale: float, rule: str
) -> None:
    target = torch.randint(of.K, (of.N,), generator=torch.Generator().manual_seed(seed))
    inputs, centers = case.inputs(of, seed), case.drawn_centers(of, seed, scale)
    for each in case.centers:
        rows = centers[each.argument]
        at = rows.expand(of.N, -1, -1) if each.axes == "MD" else rows[target]
        inputs[each.follows] = at
    loss = case.loaded(centers, of, center_update=rule)
    found = case.run(loss, inputs, target)
    names = ("compactness", "distribution") if case.loss is JOINT.loss else ("loss",)
    assert all(found[name].item() == 0 for name in names)
    for name, value in centers.items():
        assert_close(name, case.held(loss)[name], value)


@each_of(CASES)
def test_says_what_it_is(case: LossCase) -> None:
    text = repr(case.new())
    assert "across_ranks=True" in text
    assert ("update='alpha', rate=0.5" in text) == bool(case.centers)
    assert ("lambda_balance=1" in text) == (case.loss is JOINT.loss)
