"""The joint loss's kernels, on a GPU or in Triton's interpreter, against its terms in float64."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from benchmarks.counting import counted_launches
from comparing import assert_close
from devices import OF_KERNELS as DEVICE, marks_of
from fdrl_layers import FDRLLoss, FDRLOutput
from loss_cases import JOINT, assert_same_state, state_of
from strategies import IGNORE_INDEX, Sizes

pytestmark = marks_of(DEVICE)
SMALL = Sizes(N=37, P=1, M=3, D=32, K=5)
TERMS = ("total", "classification", "compactness", "balance", "distribution")
WEIGHTS = {"lambda_compactness": 0.3, "lambda_balance": 0.7, "lambda_distribution": 0.2}
RULE = pytest.mark.parametrize("rule", ["alpha", "ema"])
DTYPE = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)


def loss(of: Sizes, dtype: torch.dtype = torch.float32, **options: Any) -> FDRLLoss:
    backend = "triton" if dtype == torch.float32 else "torch"
    given = WEIGHTS | {"center_rate": 0.4, "backend": backend, "device": DEVICE} | options
    found = JOINT.new(of, dtype, **given)
    assert isinstance(found, FDRLLoss)
    return found


def batch(of: Sizes, dtype: torch.dtype, seed: int) -> dict[str, Tensor]:
    """A batch as a head in `dtype` gives it: Intra-W in float32."""
    inputs = {k: v.to(DEVICE, dtype) for k, v in JOINT.inputs(of, seed).items()}
    inputs["intra_weights"] = inputs["intra_weights"].float()
    return inputs


def labels(of: Sizes, seed: int, ignored: int = 3) -> Tensor:
    """Labels of which every `ignored`-th is, and the last class is absent."""
    found = (torch.arange(of.N) + seed) % max(of.K - 1, 1)
    if ignored:
        found[::ignored] = IGNORE_INDEX
    return found


def step(
    criterion: FDRLLoss, inputs: dict[str, Tensor], target: Tensor, weights: tuple[float, ...]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The terms of a batch, and the gradients of their weighted sum."""
    # No clone: it would put in order what is strided.
    leaves = {k: v.detach().requires_grad_() for k, v in inputs.items()}
    output = FDRLOutput(embedding=torch.empty(0, device=DEVICE), inter_weights=None, **leaves)
    terms = vars(criterion(output, target.to(DEVICE)))
    chosen = [w * terms[name] for w, name in zip(weights, TERMS, strict=True) if w]
    found = torch.autograd.grad(
        torch.stack(chosen).sum(), list(leaves.values()), materialize_grads=True
    )
    named = dict(zip(leaves, found, strict=True))
    return {k: v.detach() for k, v in terms.items()}, named


def check(of: Sizes, dtype: torch.dtype, ignored: int = 3, **options: Any) -> None:
    ours, exact = loss(of, **options), loss(of, torch.float64, **options)
    sums = ((1.0, 0.0, 0.0, 0.0, 0.0), (1.0, 2.0, 3.0, 4.0, 5.0), (0.0, 0.0, 1.0, 0.0, 1.0))
    for seed, weights in enumerate(sums):
        inputs, target = batch(of, dtype, seed), labels(of, seed, ignored)
        wide = {k: v.double() for k, v in inputs.items()}
        terms, gradients = step(ours, inputs, target, weights)
        want, wanted = step(exact, wide, target, weights)
        # What starts with a batch is held against its mean, which is taken off after the squares.
        squares = {k: float(v.square().sum() / of.N) for k, v in wide.items()}
        sizes = {"compactness": squares["latents"], "distribution": squares["intra_weights"]}
        sizes["total"] = max(sizes.values())
        for name, term in terms.items():
            assert_close(name, term, want[name], torch.float32, scale=sizes.get(name, 0.0))
        for name, gradient in gradients.items():
            assert gradient.dtype == inputs[name].dtype
            size = wanted[name].abs().max().item()
            assert_close(f"d {name}", gradient, wanted[name], scale=size)
        expected = exact.state_dict()
        for key, value in ours.state_dict().items():
            if value.is_floating_point():
                assert_close(key, value, expected[key])
            else:
                assert torch.equal(value, expected[key]), key


@DTYPE
@RULE
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_matches_the_terms(dtype: torch.dtype, rule: str, smoothing: float) -> None:
    check(SMALL, dtype, center_update=rule, label_smoothing=smoothing)


@DTYPE
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("ignored", [0, 1, 3], ids=["none ignored", "all ignored", "some ignored"])
def test_class_weights(dtype: torch.dtype, smoothing: float, ignored: int) -> None:
    weight = torch.tensor([0.3, 2.0, 0.0, 1.5, 4.0])
    check(SMALL, dtype, ignored, weight=weight, label_smoothing=smoothing)


@pytest.mark.parametrize(
    "of",
    [
        Sizes(1, 1, 1, 32, 1),
        Sizes(2, 1, 9, 64, 7),
        Sizes(16, 1, 16, 32, 40),
        pytest.param(Sizes(200, 1, 4, 32, 3), marks=pytest.mark.slow),
        Sizes(5, 1, 2, 256, 2),
    ],
    ids=str,
)
@pytest.mark.parametrize("ignored", [0, 1, 3], ids=["none ignored", "all ignored", "some ignored"])
def test_sizes_and_ignored_samples(of: Sizes, ignored: int) -> None:
    check(of, torch.float32, ignored)


def test_a_batch_that_every_program_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each of the programs then walks over several blocks of samples.
    from fdrl_layers.ops.triton import joint as kernels

    monkeypatch.setattr(kernels, "MOST_PROGRAMS", 3)
    check(Sizes(200, 1, 3, 32, 4), torch.float32)


def test_the_ignored_index_may_be_a_class() -> None:
    ours, exact = (loss(SMALL, dtype, ignore_index=2) for dtype in (torch.float32, torch.float64))
    inputs, target = batch(SMALL, torch.float32, 0), torch.arange(SMALL.N) % SMALL.K
    weights = (1.0, 0, 0, 0, 0)
    terms, gradients = step(ours, inputs, target, weights)
    want, wanted = step(exact, {k: v.double() for k, v in inputs.items()}, target, weights)
    assert_close("terms", terms, want, torch.float32, scale=10.0)
    assert_close("gradients", gradients, wanted, torch.float32)


def test_a_class_that_there_is_not_gives_nan() -> None:
    from fdrl_layers.ops.triton import joint as kernels

    criterion, inputs = loss(SMALL), batch(SMALL, torch.float32, 0)
    for alien in (-1, SMALL.K, 10**12):
        target = labels(SMALL, 0)
        target[1] = alien
        moved: Any = [*inputs.values(), target.to(DEVICE)]
        moved += [v.clone() for v in criterion.buffers()]
        moved += ["alpha", 0.5, (1.0, 1.0, 1.0), 0.0, IGNORE_INDEX]
        found = kernels.forward(*moved)
        assert found[0].isnan()
        assert found[1].isnan()
        assert found[2].isfinite()


def test_nan_is_not_hidden() -> None:
    for name in JOINT.axes:
        criterion, inputs = loss(SMALL), batch(SMALL, torch.float32, 0)
        inputs[name].view(-1)[5] = float("nan")
        terms, _ = step(criterion, inputs, labels(SMALL, 0, 0), (1.0, 0, 0, 0, 0))
        assert terms["total"].isnan(), name


@pytest.mark.usefixtures("deterministic")
def test_reads_nothing_unwritten_and_gives_the_same_bits_again() -> None:
    runs = []
    for _ in range(2):
        criterion = loss(SMALL)
        found = step(criterion, batch(SMALL, torch.float32, 0), labels(SMALL, 0), (1.0, 1, 1, 1, 1))
        runs.append(found[0] | {f"d {k}": v for k, v in found[1].items()} | state_of(criterion))
    assert all(value.isfinite().all() for value in runs[0].values())
    assert_same_state(*runs)


def test_strided_inputs() -> None:
    inputs = batch(SMALL, torch.float32, 0)
    strided = {k: torch.stack([v, v], -1)[..., 0] for k, v in inputs.items()}
    found = [
        step(loss(SMALL), each, labels(SMALL, 0), (1.0, 0, 0, 0, 0)) for each in (inputs, strided)
    ]
    assert_same_state(found[0][0] | found[0][1], found[1][0] | found[1][1])


def test_second_derivatives_are_those_by_hand() -> None:
    results = []
    for dtype in (torch.float32, torch.float64):
        criterion = loss(SMALL, dtype)
        step(criterion, batch(SMALL, dtype, 1), labels(SMALL, 1), (1.0, 0, 0, 0, 0))
        leaves = {
            k: v.to(dtype).requires_grad_() for k, v in batch(SMALL, torch.float32, 0).items()
        }
        output = FDRLOutput(embedding=torch.empty(0, device=DEVICE), inter_weights=None, **leaves)
        total = criterion(output, labels(SMALL, 0).to(DEVICE)).total
        first = torch.autograd.grad(total, list(leaves.values()), create_graph=True)
        squares = torch.stack([each.square().sum() for each in first]).sum()
        second = torch.autograd.grad(squares, list(leaves.values()))
        results.append(dict(zip(leaves, second, strict=True)))
    assert_close("second", results[0], results[1])


def test_three_launches_forward_and_one_backward() -> None:
    criterion, inputs = loss(SMALL), batch(SMALL, torch.float32, 0)
    twin = copy.deepcopy(criterion)
    with counted_launches() as names:
        step(criterion, inputs, labels(SMALL, 0), (1.0, 0, 0, 0, 0))
    assert names == ["partial_sums", "move_centers", "join_terms", "term_gradients"]
    with counted_launches() as names:
        step(twin.eval(), inputs, labels(SMALL, 0), (1.0, 0, 0, 0, 0))
    assert names == []
