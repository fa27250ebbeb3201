"""How centers start, follow the data and stay, in every loss that has them."""

import copy
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn

import oracles
from comparing import assert_close
from devices import each_of, everywhere
from fdrl_layers import DistributionLoss
from fdrl_layers.losses.centers import alpha_rule, ema_rule
from gradients import gradients
from loss_cases import (
    CENTERED,
    JOINT,
    LABELED,
    SMALL,
    LossCase,
    assert_same_state,
    each_target_of,
    gradients_of,
    labels,
    scalar,
    state_of,
    targets,
    wanting,
)
from loss_shared import DTYPE, HALF, RULE, TargetOf
from oracle_centers import OracleCenters
from strategies import Sizes, normal, seeds, sizes

MOVING = pytest.mark.parametrize("rule", ["alpha", "ema"])
RATE = 0.3


@MOVING
@given(of=sizes(), seed=seeds(), rate=st.floats(0, 1))
def test_rule_matches_oracle(of: Sizes, seed: int, rate: float, rule: str) -> None:
    features, centers = normal(of.N, of.D, seed=seed), normal(of.K, of.D, seed=seed + 1)
    target = torch.randint(of.K, (of.N,), generator=torch.Generator().manual_seed(seed))
    package = {"alpha": alpha_rule, "ema": ema_rule}[rule]
    oracle = {"alpha": oracles.alpha_update, "ema": oracles.ema_update}[rule]
    members = nn.functional.one_hot(target, of.K).double()
    actual = package(centers, members.T @ features, members.sum(0), rate)
    expected = oracle(features.numpy(), target.numpy(), centers.numpy(), rate)
    assert_close("centers", actual, expected)


def check_against_oracle(
    case: LossCase,
    loss: Any,
    rule: str,
    batches: Iterable[tuple[dict[str, Tensor], Tensor]],
    of: Sizes = SMALL,
) -> None:
    oracle = OracleCenters(case, of)
    # Each step of the optimizer is then as large as one of the rules, whatever the loss weighs.
    rate = RATE if rule != "gradient" else RATE / case.centers[0].weight
    optimizer = torch.optim.SGD(loss.parameters(), lr=rate) if rule == "gradient" else None
    for step, (inputs, target) in enumerate(batches):
        started = oracle.start(inputs, target)
        found = case.run(loss, inputs, target)
        assert_close(f"step {step}", found, case.expect(inputs, target, started))
        if optimizer:
            optimizer.zero_grad()
            scalar(found).backward()
            optimizer.step()
        oracle.move(inputs, target, rule, rate)
        assert_close(f"step {step}", case.held(loss), oracle.value)
        for each in case.centers:
            seen = loss.state_dict()[f"{each.prefix}seen"]
            assert seen.tolist() == oracle.seen[each.argument].tolist()


@each_of(everywhere(CENTERED))
@RULE
@settings(max_examples=40)
@given(data=st.data(), of=sizes(), seed=seeds())
def test_matches_oracle_over_batches(
    case: LossCase, data: st.DataObject, of: Sizes, seed: int, rule: str
) -> None:
    loss = case.new(of, center_update=rule, center_rate=RATE)
    batches = (
        (case.inputs(of, seed + step), data.draw(targets(of)).to(case.device)) for step in range(3)
    )
    check_against_oracle(case, loss, rule, batches, of)


@each_of(everywhere(CENTERED))
@MOVING
@HALF
def test_centers_of_half_features_are_in_float32(
    case: LossCase, rule: str, dtype: torch.dtype
) -> None:
    loss = case.new(center_update=rule, center_rate=RATE, dtype=torch.float32)
    batches = [
        (case.inputs(seed=seed, dtype=dtype), labels(seed=seed).to(case.device))
        for seed in range(3)
    ]
    check_against_oracle(case, loss, rule, batches)
    assert {value.dtype for value in case.held(loss).values()} == {torch.float32}


@each_of(LABELED)
@RULE
@DTYPE
def test_a_class_absent_from_a_batch_stays_bit_for_bit(
    case: LossCase, rule: str, dtype: torch.dtype
) -> None:
    loss, name = case.new(center_update=rule, dtype=dtype), case.centers[-1].argument
    for step in range(3):  # every class has moved on from its mean
        case.run(loss, case.inputs(seed=step), torch.tensor([0, 1, 2, 3, 4, 0]))
    before = case.held(loss)[name]
    for step in range(3):
        case.run(loss, case.inputs(seed=9 + step), torch.tensor([0, 3, -100, 3, 3, 0]))
    after = case.held(loss)[name]
    assert torch.equal(after[[1, 2, 4]], before[[1, 2, 4]])
    moved = (after[[0, 3]] != before[[0, 3]]).any(1)
    assert moved.all() if rule != "gradient" else not moved.any()  # no optimizer, no step


@each_target_of(CENTERED)
@RULE
@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no_grad"])
def test_evaluation_never_moves_a_center_and_adds_nothing_before_any_data(
    case: LossCase, target_of: TargetOf, rule: str, grad: bool
) -> None:
    loss, inputs = case.new(center_update=rule).eval(), wanting(case.inputs())
    with torch.set_grad_enabled(grad):
        found = case.run(loss, inputs, target_of())
    for name in ("compactness", "distribution") if case is JOINT else ("loss",):
        assert found[name].item() == 0
        if grad:
            assert not any(value.any() for value in gradients_of(found[name], inputs).values())
    assert not any(value.any() for value in loss.state_dict().values())

    case.run(loss.train(), case.inputs(), labels())
    before = state_of(loss)
    with torch.set_grad_enabled(grad):
        case.run(loss.eval(), case.inputs(seed=7), target_of())
    assert_same_state(loss.state_dict(), before)


@each_target_of(LABELED)
@RULE
def test_a_class_unseen_in_evaluation_adds_nothing(
    case: LossCase, target_of: TargetOf, rule: str
) -> None:
    loss, each, target = case.new(center_update=rule), case.centers[-1], target_of()
    case.run(loss, case.inputs(), torch.tensor([0, 0, 1, 1, 3, -100]))
    inputs, held = case.inputs(seed=1), case.held(loss)[each.argument]
    belongs = target
    if target.ndim == 1:
        belongs = nn.functional.one_hot(target.clamp_min(0), SMALL.K) * (target >= 0)[:, None]
    count = SMALL.N if target.ndim == 2 else int((target >= 0).sum())
    assert belongs[:, 2].any()  # the class that training has not met
    squared = (inputs[each.follows][:, None] - held).square().sum(-1)
    expected = (belongs * squared)[:, [0, 1, 3, 4]].sum() / count
    found = case.run(loss.eval(), inputs, target)
    name = "distribution" if case is JOINT else "loss"
    assert_close(name, found[name], expected * (1 if case is JOINT else each.weight))


def derivatives(outputs: dict[str, Tensor], inputs: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The first and a second: at the batch's mean, the first is 0 in the center itself."""
    loss, values = scalar(outputs), list(inputs.values())
    found = torch.autograd.grad(loss, values, create_graph=True, materialize_grads=True)
    first = dict(zip(inputs, found, strict=True))
    return [first, gradients(first, inputs)]


@each_target_of(CENTERED)
@RULE
def test_no_gradient_flows_through_a_center(case: LossCase, target_of: TargetOf, rule: str) -> None:
    loss, oracle = case.new(center_update=rule), OracleCenters(case)
    for step in range(2):  # at the start, where a center is the batch's mean, and after it
        inputs, target = wanting(case.inputs(seed=step)), target_of()
        started = oracle.start(inputs, target)
        for actual, expected in zip(
            derivatives(case.run(loss, inputs, target), inputs),
            derivatives(case.apply(inputs, target, started), inputs),
            strict=True,
        ):
            assert_close(f"step {step}", actual, expected)
        assert not any(buffer.requires_grad for buffer in loss.buffers())
        oracle.move(inputs, target, rule, 0.0 if rule == "gradient" else 0.5)


@each_of(CENTERED)
@RULE
def test_backward_after_the_centers_moved(case: LossCase, rule: str) -> None:
    batches = [wanting(case.inputs(seed=seed)) for seed in range(2)]
    loss, later = (case.new(center_update=rule) for _ in range(2))
    expected = [gradients_of(case.run(loss, b, labels()), b) for b in batches]
    first, second = (scalar(case.run(later, batch, labels())) for batch in batches)
    (first + second).backward()
    for batch, found in zip(batches, expected, strict=True):
        assert_close("gradient", {name: batch[name].grad for name in found}, found)


@each_of(CENTERED)
def test_gradient_has_its_centers_for_an_optimizer(case: LossCase) -> None:
    loss = case.new(center_update="gradient")
    before = dict(loss.named_parameters())
    assert list(before) == [f"{each.prefix}value" for each in case.centers]
    case.run(loss, case.inputs(), labels())  # starts in place: an optimizer keeps its hold
    for name, value in loss.named_parameters():
        assert value is before[name]
        assert value.any()
        assert value.requires_grad


@each_of(CENTERED)
@DTYPE
def test_centers_of_any_type_get_their_gradient(case: LossCase, dtype: torch.dtype) -> None:
    loss = case.new(center_update="gradient", dtype=dtype)
    case.run(loss, case.inputs(), labels())
    inputs = case.inputs(seed=1, dtype=dtype)
    found = case.run(loss, inputs, labels())
    centers = wanting(case.held(loss))
    held_constant = case.apply(inputs, labels(), centers)
    actual = gradients_of(found, dict(loss.named_parameters()))
    expected = gradients_of(held_constant, centers)
    for each, gradient in zip(case.centers, actual.values(), strict=True):
        assert gradient.any()
        assert_close(each.argument, gradient, expected[each.argument])


@pytest.mark.parametrize(("rate", "after"), [(0.0, 2.0), (0.5, 3.0), (1.0, 4.0)])
def test_ema_by_hand(rate: float, after: float) -> None:
    loss = DistributionLoss(2, 1, center_update="ema", center_rate=rate)
    assert loss(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([0, 0, 0])) == 2 / 3
    # As before the batch, but for what it starts.
    assert loss(torch.tensor([[3.0], [5.0], [5.0]]), torch.tensor([0, 1, 0])) == (1 + 0 + 9) / 3
    assert loss.centers.value.flatten().tolist() == [after, 5]


@pytest.mark.usefixtures("fresh_compiler")
@each_target_of(CENTERED)
@MOVING
def test_a_compiled_backward_pass_reads_the_centers_of_its_batch(
    case: LossCase, target_of: TargetOf, rule: str
) -> None:
    # Inductor's partitioner may compute again in backward what is cheap, as it is in small batches.
    of = Sizes(1, 3, 2, 4, SMALL.K)
    step = torch.compile(case.run, backend="aot_eager_decomp_partition", dynamic=False)
    compiled, eager = (case.new(of, center_update=rule) for _ in range(2))
    for seed in range(3):
        inputs, target = wanting(case.inputs(of, seed=seed)), target_of()[:1]
        found = gradients_of(step(compiled, inputs, target), inputs)
        assert_close("gradient", found, gradients_of(case.run(eager, inputs, target), inputs))


@each_of(CENTERED)
def test_a_copy_that_is_reset_starts_at_its_own_data(case: LossCase) -> None:
    trained = case.new()
    case.train(trained, steps=3)
    fresh = copy.deepcopy(trained)
    fresh.reset_parameters()
    new = case.new()
    inputs = case.inputs(seed=9)
    assert_same_state(case.run(fresh, inputs, labels()), case.run(new, inputs, labels()))
    assert_same_state(state_of(fresh), state_of(new))


@each_of(LABELED)
def test_compiles_where_the_data_say_how_many_samples_there_are(
    case: LossCase, fresh_compiler: None
) -> None:
    if case is JOINT and torch.__version__ < (2, 7):  # type: ignore[operator]
        pytest.skip("the compiler of torch 2.6 asks in its cross-entropy whether there are samples")
    loss, mask = case.new(), torch.arange(SMALL.N) % 2 == 0

    def step(inputs: dict[str, Tensor], target: Tensor) -> Tensor:
        return scalar(case.run(loss, {k: v[mask] for k, v in inputs.items()}, target[mask]))

    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        found = torch.compile(step, fullgraph=True, backend="eager")(case.inputs(), labels())
    loss = case.new()
    assert_close("loss", found, step(case.inputs(), labels()))
