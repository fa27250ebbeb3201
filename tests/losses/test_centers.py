"""How centers start, follow the data and stay, in every loss that has them."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn

import oracles
from comparing import assert_close
from devices import each_of, everywhere
from fdrl_layers.losses._pending import Statistics
from fdrl_layers.losses.centers import Centers, alpha_rule, ema_rule
from gradients import gradients
from loss_cases import (
    CENTERED,
    JOINT,
    LABELED,
    RULES,
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
from oracle_centers import OracleCenters
from strategies import Sizes, normal, seeds, sizes

RULE = pytest.mark.parametrize("rule", RULES)
MOVING = pytest.mark.parametrize("rule", ["alpha", "ema"])
RATE = 0.3
TargetOf = Callable[..., Tensor]


def sums_and_counts(features: Tensor, target: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    members = [features[target == k] for k in range(classes)]
    sums = torch.stack([rows.sum(0) for rows in members])
    return sums, torch.tensor([float(len(rows)) for rows in members], dtype=torch.float64)


@MOVING
@given(data=st.data(), of=sizes(), seed=seeds(), rate=st.floats(0, 1))
def test_rule_matches_oracle(
    data: st.DataObject, of: Sizes, seed: int, rate: float, rule: str
) -> None:
    features, centers = normal(of.N, of.D, seed=seed), normal(of.K, of.D, seed=seed + 1)
    target = torch.randint(of.K, (of.N,), generator=torch.Generator().manual_seed(seed))
    package, oracle = {
        "alpha": (alpha_rule, oracles.alpha_update),
        "ema": (ema_rule, oracles.ema_update),
    }[rule]
    actual = package(centers, *sums_and_counts(features, target, of.K), rate)
    expected = oracle(features.numpy(), target.numpy(), centers.numpy(), rate)
    assert_close("centers", actual, expected)


@each_of(everywhere(CENTERED))
@RULE
@settings(max_examples=40)
@given(data=st.data(), of=sizes(), seed=seeds())
def test_matches_oracle_over_batches(
    case: LossCase, data: st.DataObject, of: Sizes, seed: int, rule: str
) -> None:
    loss, oracle = case.new(of, center_update=rule, center_rate=RATE), OracleCenters(case, of)
    # Each step of the optimizer is then as large as one of the rules, whatever the loss weighs.
    rate = RATE if rule != "gradient" else RATE / case.centers[0].weight
    optimizer = torch.optim.SGD(loss.parameters(), lr=rate) if rule == "gradient" else None
    for step in range(3):
        inputs = case.inputs(of, seed + step)
        target = data.draw(targets(of)).to(case.device)
        started = oracle.start(inputs, target)
        found = case.run(loss, inputs, target)
        assert_close(f"step {step}", found, case.expect(inputs, target, started))
        if optimizer:
            optimizer.zero_grad()
            scalar(found).backward()
            optimizer.step()
        oracle.move(inputs, target, rule, rate)
        for each in case.centers:
            state = loss.state_dict()
            assert_close(each.argument, state[f"{each.prefix}value"], oracle.value[each.argument])
            assert state[f"{each.prefix}seen"].tolist() == oracle.seen[each.argument].tolist()


@each_of(everywhere(CENTERED))
@MOVING
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_centers_of_half_features_are_in_float32(
    case: LossCase, rule: str, dtype: torch.dtype
) -> None:
    loss = case.new(center_update=rule, center_rate=RATE, dtype=torch.float32)
    oracle = OracleCenters(case)
    for seed in range(3):
        inputs = {name: value.to(dtype) for name, value in case.inputs(seed=seed).items()}
        target = labels(seed=seed).to(case.device)
        started = oracle.start(inputs, target)
        found = case.run(loss, inputs, target)
        assert_close(f"step {seed}", found, case.expect(inputs, target, started))
        oracle.move(inputs, target, rule, RATE)
        for name, value in case.held(loss).items():
            assert value.dtype == torch.float32
            assert_close(name, value, oracle.value[name])


@each_of(LABELED)
@RULE
def test_a_center_starts_at_the_mean_of_the_first_batch_that_has_its_class(
    case: LossCase, rule: str
) -> None:
    loss, each = case.new(center_update=rule), case.centers[-1]
    first, second = case.inputs(seed=1), case.inputs(seed=2)
    case.run(loss, first, torch.tensor([0, 0, 1, -100, 0, 1]))
    rows = first[each.follows]
    held = case.held(loss)[each.argument]
    assert_close("class 0", held[0], rows[[0, 1, 4]].mean(0))
    assert_close("class 1", held[1], rows[[2, 5]].mean(0))
    assert not held[2:].any()
    case.run(loss, second, torch.tensor([0, 3, 1, 3, -100, 3]))
    held = case.held(loss)[each.argument]
    assert_close("class 3", held[3], second[each.follows][[1, 3, 5]].mean(0))
    assert loss.state_dict()[f"{each.prefix}seen"].tolist() == [True, True, False, True, False]


@each_of(LABELED)
@RULE
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str
)
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
def test_evaluation_never_moves_a_center(
    case: LossCase, target_of: TargetOf, rule: str, grad: bool
) -> None:
    loss = case.new(center_update=rule)
    case.run(loss, case.inputs(), labels())
    before = state_of(loss)
    loss.eval()
    with torch.set_grad_enabled(grad):
        case.run(loss, case.inputs(seed=7), target_of())
    assert_same_state(loss.state_dict(), before)


@each_target_of(CENTERED)
@RULE
def test_evaluation_before_any_data_adds_nothing(
    case: LossCase, target_of: TargetOf, rule: str
) -> None:
    loss, inputs = case.new(center_update=rule).eval(), wanting(case.inputs())
    found = case.run(loss, inputs, target_of())
    for name in ("compactness", "distribution") if case is JOINT else ("loss",):
        assert found[name].item() == 0
        assert not any(value.any() for value in gradients_of(found[name], inputs).values())
    assert not any(value.any() for value in loss.state_dict().values())


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
    loss = case.new(center_update=rule)
    expected = [gradients_of(scalar(case.run(loss, b, labels())), b) for b in batches]

    loss = case.new(center_update=rule)
    first, second = (scalar(case.run(loss, batch, labels())) for batch in batches)
    (first + second).backward()
    for batch, found in zip(batches, expected, strict=True):
        for name, gradient in found.items():
            assert_close(name, batch[name].grad, gradient)


@each_of(CENTERED)
@MOVING
def test_alpha_and_ema_have_nothing_for_an_optimizer(case: LossCase, rule: str) -> None:
    assert not list(case.new(center_update=rule).parameters())


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
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str
)
def test_centers_of_any_type_get_their_gradient(case: LossCase, dtype: torch.dtype) -> None:
    loss = case.new(center_update="gradient", dtype=dtype)
    case.run(loss, case.inputs(), labels())
    inputs = {name: value.to(dtype) for name, value in case.inputs(seed=1).items()}
    found = case.run(loss, inputs, labels())
    centers = wanting(case.held(loss))
    held_constant = case.apply(inputs, labels(), centers)
    actual = gradients_of(scalar(found), dict(loss.named_parameters()))
    expected = gradients_of(scalar(held_constant), centers)
    for each in case.centers:
        gradient = actual[f"{each.prefix}value"]
        assert gradient.any()
        assert_close(each.argument, gradient, expected[each.argument])


def test_the_weights_of_the_terms_do_not_enter_the_rules() -> None:
    plain = JOINT.new()
    none = JOINT.new(lambda_compactness=0.0, lambda_balance=0.0, lambda_distribution=0.0)
    for seed in range(2):
        for loss in (plain, none):
            JOINT.run(loss, JOINT.inputs(seed=seed), labels())
    assert_same_state(none.state_dict(), plain.state_dict())


def met(centers: Centers, sums: float, count: float, sums_1: float, count_1: float) -> list[float]:
    """What two centers of width 1 are for a batch with these sums and counts."""
    batch = Statistics(
        torch.tensor([[sums], [sums_1]], dtype=torch.float64),
        torch.tensor([count, count_1], dtype=torch.float64),
        torch.tensor(1.0, dtype=torch.float64),
    )
    held, _ = centers(batch)
    return [float(value) for value in held.flatten()]


@pytest.mark.parametrize(("rate", "after"), [(0.0, 2.0), (0.5, 3.0), (1.0, 4.0)])
def test_ema_by_hand(rate: float, after: float) -> None:
    centers = Centers(2, 1, update="ema", rate=rate, dtype=torch.float64)
    assert met(centers, 6, 3, 0, 0) == [2, 0]
    assert met(centers, 8, 2, 5, 1) == [2, 5]  # as before the batch, but for what it starts
    assert centers.value.flatten().tolist() == [after, 5]


def test_alpha_by_hand() -> None:
    centers = Centers(2, 1, update="alpha", rate=0.5, dtype=torch.float64)
    assert met(centers, 6, 3, 0, 0) == [2, 0]
    # c = 2 meets 3 and 7: the sum of c - x is -6, over 1 + 2 it is -2, and half of that -1.
    assert met(centers, 10, 2, 0, 0) == [2, 0]
    assert centers.value.flatten().tolist() == [3, 0]


def test_wen_et_al_s_rate_is_the_default() -> None:
    for case in CENTERED:
        named, default = case.new(center_update="alpha", center_rate=0.5), case.new()
        for seed in range(2):
            for loss in (named, default):
                case.run(loss, case.inputs(seed=seed), labels())
        assert_same_state(default.state_dict(), named.state_dict())
