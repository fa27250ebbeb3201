"""The joint loss in one operator against its single terms; tests/losses has the oracle."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from comparing import assert_close
from devices import OF_KERNELS, each_of, everywhere, marks_of, name_of
from fdrl_layers import FDRLLoss
from fdrl_layers.losses._cross_entropy import cross_entropy
from fdrl_layers.ops.backend import INSTALLED
from joint_checks import OF_TRITON, TERMS, WEIGHTS, WIDE, batch, check, loss, step
from loss_cases import JOINT, SMALL, LossCase, assert_same_state, labels, state_of, wanting
from strategies import IGNORE_INDEX, Sizes

RULES = pytest.mark.parametrize("rule", ["alpha", "ema"])
CASES = everywhere([JOINT])
CASE = each_of(CASES)
WAYS = [
    pytest.param(case, "torch", id=name_of(case), marks=marks_of(case.device)) for case in CASES
]
if INSTALLED:
    there = marks_of(OF_KERNELS)
    WAYS += [pytest.param(OF_TRITON, "triton", id=f"triton, {OF_KERNELS}", marks=there)]
ANY = pytest.mark.parametrize(("case", "backend"), WAYS)


def by_terms(criterion: FDRLLoss, inputs: dict[str, Tensor], target: Tensor) -> dict[str, Tensor]:
    """The joint loss by the modules of its terms."""
    options = (criterion.weight, criterion.label_smoothing, criterion.ignore_index, False)
    terms = {
        "classification": cross_entropy(inputs["logits"], target, *options),
        "compactness": criterion.compactness(inputs["latents"]),
        "balance": criterion.balance(inputs["intra_weights"]),
        "distribution": criterion.distribution(inputs["intra_weights"], target),
    }
    weighted = [weight * terms[name[len("lambda_") :]] for name, weight in WEIGHTS.items()]
    return {"total": terms["classification"] + sum(weighted), **terms}


def every_label(of: Sizes = SMALL, seed: int = 0) -> Tensor:
    return (torch.arange(of.N) + seed) % of.K


def no_label(of: Sizes = SMALL, seed: int = 0) -> Tensor:
    return torch.full((of.N,), IGNORE_INDEX)


def class_weights(of: Sizes = SMALL) -> Tensor:
    """Weights of which the first is 0, the second 1 and no two are alike."""
    return torch.arange(of.K, dtype=torch.float64)


SMOOTHING = pytest.mark.parametrize("smoothing", [0.0, 0.1])
WEIGHTED = pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
TARGETS = pytest.mark.parametrize("target_of", [every_label, labels, no_label])


@CASE
@RULES
@TARGETS
@SMOOTHING
@WEIGHTED
@pytest.mark.parametrize("of", [SMALL, Sizes(1, 2, 3, 4, 5), Sizes(37, 2, 16, 3, 2)], ids=str)
def test_equals_its_terms_at_any_scale(
    case: LossCase, rule: str, target_of: Any, smoothing: float, weighted: bool, of: Sizes
) -> None:
    weight = class_weights(of) if weighted else None
    ours = loss(of, case, center_update=rule, label_smoothing=smoothing, weight=weight)
    theirs = copy.deepcopy(ours)
    ways: tuple[tuple[FDRLLoss, Any], ...] = ((ours, case.run), (theirs, by_terms))
    for seed, scale in enumerate((1e-3, 1e-3, 1.0, 1e3)):
        found = []
        for criterion, how in ways:
            inputs = wanting(case.inputs(of, seed, scale))
            terms = how(criterion, inputs, target_of(of, seed).to(case.device))
            sums = {name: 2 * terms[name] for name in TERMS}
            sums["all"] = torch.stack([(i + 1) * terms[name] for i, name in enumerate(TERMS)]).sum()
            each = {k: v.detach() for k, v in terms.items()}
            for name, value in sums.items():
                given = torch.autograd.grad(
                    value, list(inputs.values()), retain_graph=True, materialize_grads=True
                )
                each |= {f"d{name}/d{k}": g for k, g in zip(inputs, given, strict=True)}
            state = criterion.state_dict()
            found.append(each | {key: value.double() for key, value in state.items()})
        assert_close(f"step {seed}", found[0], found[1])


@TARGETS
@SMOOTHING
@WEIGHTED
def test_first_and_second_derivatives(target_of: Any, smoothing: float, weighted: bool) -> None:
    weight = class_weights() if weighted else None
    criterion = loss(label_smoothing=smoothing, weight=weight)
    criterion(*JOINT.arguments(JOINT.inputs(seed=5), every_label()))
    start = {key: value for key, value in state_of(criterion).items() if key != "weight"}

    def function(*inputs: Tensor) -> tuple[Tensor, ...]:
        criterion.load_state_dict(start, strict=False)
        named = dict(zip(JOINT.axes, inputs, strict=True))
        return tuple(JOINT.run(criterion, named, target_of()).values())

    inputs = tuple(wanting(JOINT.inputs()).values())
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


@pytest.mark.parametrize("only", JOINT.axes)
def test_what_wants_no_gradient_gets_none(only: str) -> None:
    results = []
    for alone in (False, True):
        inputs = JOINT.inputs()
        for name, value in inputs.items():
            value.requires_grad_(name == only or not alone)
        terms = JOINT.run(loss(), inputs, every_label())
        results.append(torch.autograd.grad(terms["total"], inputs[only])[0])
    assert torch.equal(*results)


@ANY
@RULES
@SMOOTHING
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_types(
    case: LossCase, backend: str, rule: str, smoothing: float, dtype: torch.dtype
) -> None:
    check(WIDE, case, dtype, backend, center_update=rule, label_smoothing=smoothing)


@ANY
@RULES
@pytest.mark.usefixtures("deterministic")
def test_reads_nothing_unwritten_and_gives_the_same_bits_again(
    case: LossCase, backend: str, rule: str
) -> None:
    runs = []
    for _ in range(2):
        criterion = loss(WIDE, case, dtype=torch.float32, backend=backend, center_update=rule)
        found = step(criterion, batch(WIDE, case), labels(WIDE), (1.0,) * 5)
        runs.append(found | state_of(criterion))
    assert all(value.isfinite().all() for value in runs[0].values())
    assert_same_state(*runs)


@ANY
def test_strided_and_expanded_inputs(case: LossCase, backend: str) -> None:
    inputs = batch(WIDE, case)
    strided = {k: torch.stack([v, -v], -1)[..., 0] for k, v in inputs.items()}
    expanded = {k: v[:1].expand(WIDE.N, *v.shape[1:]) for k, v in inputs.items()}
    for each in (strided, expanded):
        found = []
        for given in (each, {k: v.contiguous() for k, v in each.items()}):
            criterion = loss(WIDE, case, dtype=torch.float32, backend=backend)
            found.append(step(criterion, given, every_label(WIDE)))
        if backend == "triton":
            assert_same_state(*found)
        assert_close("strided", found[0], found[1])


def test_centers_know_when_all_have_met_data() -> None:
    criterion = loss()
    latents, classes = criterion.compactness.centers, criterion.distribution.centers
    assert not latents.complete()
    JOINT.run(criterion, JOINT.inputs(), labels())
    assert latents.complete()
    assert not classes.complete()  # the last class is absent
    empty = state_of(loss())
    JOINT.run(criterion, JOINT.inputs(), every_label())
    assert latents.complete()
    assert classes.complete() == (SMALL.N >= SMALL.K)
    full = state_of(criterion)
    for twin in (copy.deepcopy(criterion), criterion):
        assert twin.distribution.centers.complete()
        twin.load_state_dict(empty)
        assert not twin.distribution.centers.complete()
        twin.load_state_dict(copy.deepcopy(full), assign=True)
        assert twin.distribution.centers.complete()
        twin.to(torch.float32)
        assert twin.distribution.centers.complete()
        twin.reset_parameters()
        assert not twin.distribution.centers.complete()
        assert not twin.compactness.centers.complete()


def test_a_loss_that_starts_anew_forgets_that_it_was_complete() -> None:
    criterion, inputs = loss(), JOINT.inputs()
    for _ in range(2):
        JOINT.run(criterion, inputs, every_label())
    criterion.reset_parameters()
    first, fresh = (
        JOINT.run(each, JOINT.inputs(seed=3), every_label()) for each in (criterion, loss())
    )
    assert_close("first", first, fresh)


def test_a_backward_pass_after_the_next_forward_pass() -> None:
    criterion, inputs = loss(), wanting(JOINT.inputs())
    JOINT.run(criterion, inputs, every_label())
    want = step(copy.deepcopy(criterion), inputs, every_label())
    total = JOINT.run(criterion, inputs, every_label())["total"]
    JOINT.run(criterion, JOINT.inputs(seed=1), every_label())
    late = torch.autograd.grad(total, list(inputs.values()))
    for name, gradient in zip(inputs, late, strict=True):
        assert torch.equal(gradient, want[f"d {name}"])


@pytest.mark.usefixtures("deterministic")
def test_weights_may_change_between_steps() -> None:
    criterion, inputs = loss(), JOINT.inputs()
    for weight in (0.0, 1.0, 10.0):
        criterion.lambda_balance = weight
        found = JOINT.run(criterion, inputs, every_label())
        parts = found["classification"] + 0.3 * found["compactness"] + 0.2 * found["distribution"]
        assert_close("total", found["total"], parts + weight * found["balance"])
