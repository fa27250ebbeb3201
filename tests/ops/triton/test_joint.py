"""The joint loss's kernels, on a GPU or in Triton's interpreter, against its terms in float64."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from benchmarks.counting import record_launches
from comparing import assert_close
from devices import OF_KERNELS, marks_of
from fdrl_layers.ops.triton import joint as kernels
from joint_checks import OF_TRITON, WIDE, batch, check, labels, loss, step
from loss_cases import gradients_of
from strategies import IGNORE_INDEX, Sizes

pytestmark = marks_of(OF_KERNELS)
DTYPE = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
IGNORED = pytest.mark.parametrize(
    "ignored", [0, 1, 3], ids=["none ignored", "all ignored", "some ignored"]
)
triton = partial(loss, WIDE, OF_TRITON, dtype=torch.float32, backend="triton")
by_hand = partial(loss, WIDE, OF_TRITON, backend="torch")


def features(**options: Any) -> dict[str, Tensor]:
    return batch(WIDE, OF_TRITON, **options)


@DTYPE
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@IGNORED
def test_class_weights(dtype: torch.dtype, smoothing: float, ignored: int) -> None:
    weight = torch.tensor([0.3, 2.0, 0.0, 1.5, 4.0])
    given = {"weight": weight, "label_smoothing": smoothing}
    check(WIDE, OF_TRITON, dtype, "triton", ignored, **given)


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
    check(of, OF_TRITON, torch.float32, "triton", ignored)


def test_a_batch_that_every_program_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each of the programs then walks over several blocks of samples.
    monkeypatch.setattr(kernels, "MOST_PROGRAMS", 3)
    check(Sizes(200, 1, 3, 32, 4), OF_TRITON, torch.float32, "triton")


def test_the_ignored_index_may_be_a_class() -> None:
    inputs, target = features(), torch.arange(WIDE.N) % WIDE.K
    found = step(triton(ignore_index=2), inputs, target)
    wide = {k: v.double() for k, v in inputs.items()}
    for name, want in step(by_hand(ignore_index=2), wide, target).items():
        assert_close(name, found[name], want, scale=0.0 if name[:2] == "d " else 10.0)


def test_a_class_that_there_is_not_gives_nan() -> None:
    for alien in (-1, WIDE.K, 10**12):
        target = labels()
        target[1] = alien
        moved: Any = [*features().values(), target.to(OF_KERNELS), *triton().buffers()]
        moved += ["alpha", 0.5, (1.0, 1.0, 1.0), 0.0, IGNORE_INDEX]
        found = kernels.forward(*moved)
        assert [bool(each.isnan()) for each in found[:3]] == [True, True, False]
        assert found[2].isfinite()


def test_nan_is_not_hidden() -> None:
    for name in OF_TRITON.axes:
        inputs = features()
        inputs[name].view(-1)[5] = float("nan")
        assert step(triton(), inputs, labels(ignored=0))["total"].isnan(), name


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "class weights"])
def test_second_derivatives_are_those_by_hand(weighted: bool) -> None:
    results = []
    weight = torch.arange(float(WIDE.K)) / 2 if weighted else None
    options: dict[str, Any] = {"weight": weight, "label_smoothing": 0.1 if weighted else 0.0}
    for criterion in (triton(**options), by_hand(**options)):
        dtype = criterion.compactness.centers.value.dtype
        step(criterion, {k: v.to(dtype) for k, v in features(seed=1).items()}, labels(seed=1))
        leaves = {k: v.to(dtype).requires_grad_() for k, v in features().items()}
        total = OF_TRITON.run(criterion, leaves, labels().to(OF_KERNELS))["total"]
        first = torch.autograd.grad(total, list(leaves.values()), create_graph=True)
        squares = torch.stack([each.square().sum() for each in first]).sum()
        results.append(gradients_of(squares, leaves))
    assert_close("second", results[0], results[1])


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_three_launches_forward_and_one_backward_in_training(training: bool) -> None:
    with record_launches() as names:
        step(triton().train(training), features(), labels())
    launched = ["partial_sums", "move_centers", "join_terms", "term_gradients"]
    assert names == (launched if training else [])
