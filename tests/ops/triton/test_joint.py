"""The joint loss's kernels, on a GPU or in Triton's interpreter, against its terms in float64."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from benchmarks.counting import counted_launches
from comparing import assert_close
from devices import OF_KERNELS as DEVICE, marks_of
from fdrl_layers import FDRLLoss
from fdrl_layers.ops.triton import joint as kernels
from loss_cases import JOINT as JOINT_ON_CPU, assert_same_state, gradients_of, state_of
from strategies import IGNORE_INDEX, Sizes

pytestmark = marks_of(DEVICE)
JOINT = replace(JOINT_ON_CPU, device=DEVICE)
SMALL = Sizes(N=37, P=1, M=3, D=32, K=5)
TERMS = ("total", "classification", "compactness", "balance", "distribution")
WEIGHTS = {"lambda_compactness": 0.3, "lambda_balance": 0.7, "lambda_distribution": 0.2}
DTYPE = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
SMOOTHING = pytest.mark.parametrize("smoothing", [0.0, 0.1])
IGNORED = pytest.mark.parametrize(
    "ignored", [0, 1, 3], ids=["none ignored", "all ignored", "some ignored"]
)


def loss(of: Sizes = SMALL, dtype: torch.dtype = torch.float32, **options: Any) -> FDRLLoss:
    backend = "triton" if dtype == torch.float32 else "torch"
    found = JOINT.new(of, dtype, **WEIGHTS | {"center_rate": 0.4, "backend": backend} | options)
    assert isinstance(found, FDRLLoss)
    return found


def batch(
    of: Sizes = SMALL, dtype: torch.dtype = torch.float32, seed: int = 0
) -> dict[str, Tensor]:
    """A batch as a head in `dtype` gives it: Intra-W in float32."""
    inputs = {k: v.to(dtype) for k, v in JOINT.inputs(of, seed).items()}
    return inputs | {"intra_weights": inputs["intra_weights"].float()}


def labels(of: Sizes = SMALL, seed: int = 0, ignored: int = 3) -> Tensor:
    """Labels of which every `ignored`-th is, and the last class is absent."""
    found = (torch.arange(of.N, device=DEVICE) + seed) % max(of.K - 1, 1)
    if ignored:
        found[::ignored] = IGNORE_INDEX
    return found


def step(
    criterion: FDRLLoss,
    inputs: dict[str, Tensor],
    target: Tensor,
    weights: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 0.0),
) -> dict[str, Tensor]:
    """The terms of a batch, and the gradients of their weighted sum."""
    # No clone: it would put in order what is strided.
    leaves = {k: v.detach().requires_grad_() for k, v in inputs.items()}
    terms = JOINT.run(criterion, leaves, target)
    chosen = [w * terms[name] for w, name in zip(weights, TERMS, strict=True) if w]
    found = gradients_of(torch.stack(chosen).sum(), leaves)
    return {k: v.detach() for k, v in terms.items()} | {f"d {k}": v for k, v in found.items()}


def check(of: Sizes, dtype: torch.dtype, ignored: int = 3, **options: Any) -> None:
    ours, exact = loss(of, **options), loss(of, torch.float64, **options)
    sums = ((1.0, 0.0, 0.0, 0.0, 0.0), (1.0, 2.0, 3.0, 4.0, 5.0), (0.0, 0.0, 1.0, 0.0, 1.0))
    for seed, weights in enumerate(sums):
        inputs, target = batch(of, dtype, seed), labels(of, seed, ignored)
        wide = {k: v.double() for k, v in inputs.items()}
        found = step(ours, inputs, target, weights)
        # What starts with a batch is held against its mean, which is taken off after the squares.
        squares = {k: float(v.square().sum() / of.N) for k, v in wide.items()}
        sizes = {"compactness": squares["latents"], "distribution": squares["intra_weights"]}
        sizes["total"] = max(sizes.values())
        for name, want in step(exact, wide, target, weights).items():
            given = inputs.get(name.removeprefix("d "))
            size = sizes.get(name, 0.0) if given is None else want.abs().max().item()
            assert found[name].dtype == (torch.float32 if given is None else given.dtype)
            assert_close(name, found[name], want, scale=size)
        expected = exact.state_dict()
        for key, value in ours.state_dict().items():
            if value.is_floating_point():
                assert_close(key, value, expected[key])
            else:
                assert torch.equal(value, expected[key]), key


@DTYPE
@pytest.mark.parametrize("rule", ["alpha", "ema"])
@SMOOTHING
def test_matches_the_terms(dtype: torch.dtype, rule: str, smoothing: float) -> None:
    check(SMALL, dtype, center_update=rule, label_smoothing=smoothing)


@DTYPE
@SMOOTHING
@IGNORED
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
@IGNORED
def test_sizes_and_ignored_samples(of: Sizes, ignored: int) -> None:
    check(of, torch.float32, ignored)


def test_a_batch_that_every_program_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each of the programs then walks over several blocks of samples.
    monkeypatch.setattr(kernels, "MOST_PROGRAMS", 3)
    check(Sizes(200, 1, 3, 32, 4), torch.float32)


def test_the_ignored_index_may_be_a_class() -> None:
    inputs, target = batch(), torch.arange(SMALL.N, device=DEVICE) % SMALL.K
    found = step(loss(ignore_index=2), inputs, target)
    exact = loss(dtype=torch.float64, ignore_index=2)
    want = step(exact, {k: v.double() for k, v in inputs.items()}, target)
    for name in want:
        assert_close(name, found[name], want[name], scale=0.0 if name[:2] == "d " else 10.0)


def test_a_class_that_there_is_not_gives_nan() -> None:
    criterion, inputs = loss(), batch()
    for alien in (-1, SMALL.K, 10**12):
        target = labels()
        target[1] = alien
        moved: Any = [*inputs.values(), target, *(v.clone() for v in criterion.buffers())]
        moved += ["alpha", 0.5, (1.0, 1.0, 1.0), 0.0, IGNORE_INDEX]
        found = kernels.forward(*moved)
        assert found[0].isnan()
        assert found[1].isnan()
        assert found[2].isfinite()


def test_nan_is_not_hidden() -> None:
    for name in JOINT.axes:
        inputs = batch()
        inputs[name].view(-1)[5] = float("nan")
        assert step(loss(), inputs, labels(ignored=0))["total"].isnan(), name


@pytest.mark.usefixtures("deterministic")
def test_reads_nothing_unwritten_and_gives_the_same_bits_again() -> None:
    runs = []
    for _ in range(2):
        criterion = loss()
        runs.append(step(criterion, batch(), labels(), (1.0,) * 5) | state_of(criterion))
    assert all(value.isfinite().all() for value in runs[0].values())
    assert_same_state(*runs)


def test_strided_inputs() -> None:
    strided = {k: torch.stack([v, v], -1)[..., 0] for k, v in batch().items()}
    assert_same_state(*(step(loss(), each, labels()) for each in (batch(), strided)))


def test_second_derivatives_are_those_by_hand() -> None:
    results = []
    for dtype in (torch.float32, torch.float64):
        criterion = loss(dtype=dtype)
        step(criterion, {k: v.to(dtype) for k, v in batch(seed=1).items()}, labels(seed=1))
        leaves = {k: v.to(dtype).requires_grad_() for k, v in batch().items()}
        total = JOINT.run(criterion, leaves, labels())["total"]
        first = torch.autograd.grad(total, list(leaves.values()), create_graph=True)
        squares = torch.stack([each.square().sum() for each in first]).sum()
        results.append(gradients_of(squares, leaves))
    assert_close("second", *results)


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_three_launches_forward_and_one_backward_in_training(training: bool) -> None:
    with counted_launches() as names:
        step(loss().train(training), batch(), labels())
    launched = ["partial_sums", "move_centers", "join_terms", "term_gradients"]
    assert names == (launched if training else [])
