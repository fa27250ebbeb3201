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
    labels,
    targets,
    wanting,
)
from strategies import PAPER, Sizes, scales, seeds, sizes

EMPTY = Sizes(N=0, P=2, M=3, D=4, K=5)
HALF = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
TargetOf = Callable[..., Tensor]


def test_every_public_loss_is_a_case() -> None:
    public = {name for name in fdrl_layers.__all__ if name.endswith("Loss")}
    assert public == {case.name for case in CASES}


@each_of(everywhere(CASES))
@given(data=st.data(), of=sizes(), seed=seeds(), scale=scales())
def test_matches_oracle(
    case: LossCase, data: st.DataObject, of: Sizes, seed: int, scale: float
) -> None:
    inputs, target = case.inputs(of, seed, scale), data.draw(targets(of)).to(case.device)
    centers = case.drawn_centers(of, seed, scale)
    expected = case.expect(inputs, target, centers)
    # A cross-entropy near 0 is what remains of logits of this size.
    assert_close(case.name, case.apply(inputs, target, centers), expected, scale=scale)


@each_target_of(everywhere(CASES))
def test_matches_oracle_at_paper_sizes(case: LossCase, target_of: TargetOf) -> None:
    inputs, centers, target = case.inputs(PAPER), case.drawn_centers(PAPER), target_of(PAPER)
    expected = case.expect(inputs, target, centers)
    assert_close(case.name, case.apply(inputs, target, centers), expected)


@each_target_of(everywhere(CASES))
def test_module_equals_function(case: LossCase, target_of: TargetOf) -> None:
    inputs, centers, target = case.inputs(), case.drawn_centers(), target_of()
    actual = case.run(case.loaded(centers).eval(), inputs, target)
    for name, expected in case.apply(inputs, target, centers).items():
        assert torch.equal(actual[name], expected), name


def drawn_labels(case: LossCase, of: Sizes, seed: int) -> Tensor:
    drawn = torch.randint(of.K, (of.N,), generator=torch.Generator().manual_seed(seed))
    return drawn.to(case.device)


def check_derivatives(
    check: Callable[..., bool], case: LossCase, target_of: TargetOf, of: Sizes
) -> None:
    inputs, centers = wanting(case.inputs(of)), wanting(case.drawn_centers(of))

    def loss(*values: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(inputs, values, strict=False))
        held = dict(zip(centers, values[len(inputs) :], strict=True))
        return tuple(case.apply(given, target_of(of), held).values())

    assert check(loss, (*inputs.values(), *centers.values()))


@each_target_of(everywhere(CASES))
def test_gradcheck(case: LossCase, target_of: TargetOf) -> None:
    check_derivatives(gradcheck, case, target_of, SMALL)


@each_target_of(CASES)
def test_gradgradcheck(case: LossCase, target_of: TargetOf) -> None:
    check_derivatives(gradgradcheck, case, target_of, Sizes(N=3, P=1, M=2, D=1, K=3))


@each_target_of(everywhere(CASES))
@HALF
def test_is_computed_in_float32(case: LossCase, target_of: TargetOf, dtype: torch.dtype) -> None:
    # Inputs are rounded before, so that the row of float32 holds: nothing more may be rounded.
    inputs = {name: value.to(dtype) for name, value in case.inputs(scale=100).items()}
    centers = {name: value.to(dtype) for name, value in case.drawn_centers(scale=100).items()}
    target = target_of()
    target = target.float() if target.is_floating_point() else target
    expected = case.expect(inputs, target, centers)
    module = case.loaded(centers, dtype=dtype).eval()
    for actual in (case.apply(inputs, target, centers), case.run(module, inputs, target)):
        assert {value.dtype for value in actual.values()} == {torch.float32}
        assert_close(case.name, actual, expected)


@each_target_of(everywhere(CASES))
@pytest.mark.parametrize("rule", RULES)
def test_is_computed_in_float32_under_autocast(
    case: LossCase, target_of: TargetOf, rule: str
) -> None:
    plain, cast = (case.new(dtype=torch.float32, center_update=rule) for _ in range(2))
    for seed in range(3):
        target = target_of(seed=seed)
        target = target.float() if target.is_floating_point() else target
        inputs = {n: v.float() for n, v in case.inputs(seed=seed, scale=100).items()}
        expected = case.run(plain, inputs, target)
        with torch.autocast(case.device, torch.bfloat16):
            actual = case.run(cast, inputs, target)
        for name, value in expected.items():
            assert torch.equal(actual[name], value), name
    assert_same_state(cast.state_dict(), plain.state_dict())


@each_target_of(everywhere(CASES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_is_finite_at_any_scale(
    case: LossCase, target_of: TargetOf, dtype: torch.dtype, scale: float
) -> None:
    inputs = {n: v.to(dtype).requires_grad_() for n, v in case.inputs(scale=scale).items()}
    loss, target = case.new(dtype=dtype), target_of()
    for seed in range(2):  # at the start and after it
        outputs = case.run(loss, inputs, target)
        found = {**outputs, **loss.state_dict(), **gradients(outputs, inputs, seed)}
        assert all(value.isfinite().all() for value in found.values())


@each_target_of(everywhere(CASES))
@pytest.mark.parametrize("rule", RULES)
def test_an_empty_batch_is_zero_and_no_start(
    case: LossCase, target_of: TargetOf, rule: str
) -> None:
    loss, inputs = case.new(EMPTY, center_update=rule), wanting(case.inputs(EMPTY))
    outputs = case.run(loss, inputs, target_of(EMPTY))
    assert all(value.item() == 0 for value in outputs.values())
    assert gradients(outputs, inputs).keys() == inputs.keys()
    assert_same_state(loss.state_dict(), case.new(EMPTY, center_update=rule).state_dict())


@each_of(everywhere(LABELED))
@pytest.mark.parametrize("rule", RULES)
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


@each_of(everywhere(CASES))
def test_leaves_the_global_generator_alone(case: LossCase) -> None:
    before = torch.get_rng_state()
    case.run(case.new(), case.inputs(), labels().to(case.device))
    assert torch.equal(torch.get_rng_state(), before)


@each_target_of(everywhere(CASES))
@pytest.mark.usefixtures("deterministic")
def test_is_deterministic(case: LossCase, target_of: TargetOf) -> None:
    inputs, target = wanting(case.inputs()), target_of()
    losses = case.new(), case.new()
    for seed in range(2):
        once, again = (gradients(case.run(loss, inputs, target), inputs, seed) for loss in losses)
        assert all(torch.equal(again[name], value) for name, value in once.items())
    assert_same_state(losses[1].state_dict(), losses[0].state_dict())


@each_of(CASES)
@given(data=st.data(), of=sizes(), seed=seeds(), letter=st.sampled_from("NMDK"))
def test_law_no_axis_has_an_order(
    case: LossCase, data: st.DataObject, of: Sizes, seed: int, letter: str
) -> None:
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(getattr(of, letter), generator=generator).to(case.device)

    def moved(tensor: Tensor, axes: str) -> Tensor:
        return tensor.index_select(axes.index(letter), order) if letter in axes else tensor

    inputs, centers = case.inputs(of, seed), case.drawn_centers(of, seed)
    target = data.draw(targets(of)).to(case.device)
    loss = case.loaded(centers, of)
    expected = case.run(loss, inputs, target)
    held = case.held(loss)

    if target.ndim == 1 and letter == "K":
        target = torch.where(target < 0, target, order.argsort()[target.clamp_min(0)])
    else:
        target = moved(target, "NK"[: target.ndim])
    loss = case.loaded({c.argument: moved(centers[c.argument], c.axes) for c in case.centers}, of)
    inputs = {name: moved(value, case.axes[name]) for name, value in inputs.items()}
    assert_close(case.name, case.run(loss, inputs, target), expected)
    for each in case.centers:
        after = moved(held[each.argument], each.axes)
        assert_close(each.argument, case.held(loss)[each.argument], after)


@each_of(CASES)
@given(data=st.data(), of=sizes(), seed=seeds(), scale=scales())
def test_law_a_loss_is_never_negative(
    case: LossCase, data: st.DataObject, of: Sizes, seed: int, scale: float
) -> None:
    centers = case.drawn_centers(of, seed, scale)
    found = case.apply(
        case.inputs(of, seed, scale), data.draw(targets(of)).to(case.device), centers
    )
    assert all(value.item() >= 0 for value in found.values())


@each_of(CENTERED)
@given(of=sizes(), seed=seeds(), scale=scales(), rule=st.sampled_from(RULES))
def test_law_it_is_exactly_zero_at_the_centers(
    case: LossCase, of: Sizes, seed: int, scale: float, rule: str
) -> None:
    target = drawn_labels(case, of, seed)
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
@given(data=st.data(), of=sizes(), seed=seeds(), times=st.integers(2, 4))
def test_law_a_repeated_batch_is_no_news(
    case: LossCase, data: st.DataObject, of: Sizes, seed: int, times: int
) -> None:
    inputs, target = case.inputs(of, seed), data.draw(targets(of)).to(case.device)
    centers = case.drawn_centers(of, seed)
    expected = case.apply(inputs, target, centers)
    inputs = {name: torch.cat([value] * times) for name, value in inputs.items()}
    assert_close(case.name, case.apply(inputs, torch.cat([target] * times), centers), expected)


@each_of(LABELED)
@given(of=sizes(), seed=seeds(), rule=st.sampled_from(RULES))
def test_law_a_one_hot_target_is_its_label(case: LossCase, of: Sizes, seed: int, rule: str) -> None:
    target = drawn_labels(case, of, seed)
    one_hot = torch.nn.functional.one_hot(target, of.K).double()
    hard, soft = (case.new(of, center_update=rule) for _ in range(2))
    for step in range(2):
        inputs = case.inputs(of, seed + step)
        assert_close(case.name, case.run(soft, inputs, one_hot), case.run(hard, inputs, target))
    for key, value in hard.state_dict().items():
        assert_close(key, soft.state_dict()[key].double(), value.double())


@each_of(CASES)
def test_says_what_it_is(case: LossCase) -> None:
    text = repr(case.new())
    assert "across_ranks=True" in text
    assert ("update='alpha', rate=0.5" in text) == bool(case.centers)
    assert ("lambda_balance=1" in text) == (case.loss is JOINT.loss)
