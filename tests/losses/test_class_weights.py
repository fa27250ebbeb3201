"""Weights of classes in the joint loss, and what may stand in the cross-entropy's place."""

import pickle
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from comparing import assert_close
from fdrl_layers import FDRLHead, FDRLLoss
from loss_cases import (
    DISTRIBUTION,
    JOINT,
    SMALL,
    LossCase,
    array,
    assert_same_state,
    gradients_of,
    labels,
    shares,
    wanting,
)
from loss_shared import HALF, assert_close_state
from strategies import IGNORE_INDEX

WEIGHT = torch.tensor([0.3, 2.0, 0.0, 1.5, 4.0], dtype=torch.float64)
OTHER = torch.tensor([1.0, 0.5, 3.0, 0.25, 2.0], dtype=torch.float64)
BATCH = pytest.mark.parametrize("target_of", [labels, shares])
WEIGHTS: dict[str, Any] = {"weight": WEIGHT, "distribution_weight": OTHER}
TRAINING = pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
SMOOTHING = pytest.mark.parametrize("smoothing", [0.0, 0.2])


@BATCH
@SMOOTHING
@TRAINING
def test_is_that_of_pytorch(target_of: Any, smoothing: float, training: bool) -> None:
    ours = JOINT.new(weight=WEIGHT, label_smoothing=smoothing).train(training)
    theirs = nn.CrossEntropyLoss(WEIGHT, label_smoothing=smoothing, ignore_index=IGNORE_INDEX)
    inputs, target = wanting(JOINT.inputs()), target_of()
    found, expected = JOINT.run(ours, inputs, target), theirs(inputs["logits"], target)
    assert_close("classification", found["classification"], expected)
    gradient = gradients_of(found["classification"], inputs)["logits"]
    assert_close("gradient", gradient, gradients_of(expected, inputs)["logits"])


@BATCH
@pytest.mark.parametrize(
    ("case", "options"),
    [
        (DISTRIBUTION, {"weight": OTHER}),
        (JOINT, WEIGHTS),
        (JOINT, WEIGHTS | {"label_smoothing": 0.2}),
    ],
    ids=["distribution", "joint", "smoothed"],
)
def test_matches_oracle(case: LossCase, options: dict[str, Any], target_of: Any) -> None:
    inputs, target, centers = case.inputs(), target_of(), case.drawn_centers()
    arrays = {n: array(v) if isinstance(v, Tensor) else v for n, v in options.items()}
    expected = case.expect(inputs, target, centers, **arrays)
    assert_close("function", case.apply(inputs, target, centers, **options), expected)
    for training in (True, False):
        module = case.loaded(centers, **options).train(training)
        assert_close("module", case.run(module, inputs, target), expected)


def test_centers_move_as_without_weights() -> None:
    plain = JOINT.new()
    JOINT.train(plain, 3)
    expected = plain.state_dict()
    for options in (WEIGHTS, {"weight": WEIGHT}):
        weighted = JOINT.new(**options)
        JOINT.train(weighted, 3)
        assert_close_state({key: weighted.state_dict()[key] for key in expected}, expected)


@SMOOTHING
@TRAINING
def test_a_batch_of_no_weight_has_no_loss(smoothing: float, training: bool) -> None:
    criterion = JOINT.new(weight=WEIGHT, label_smoothing=smoothing).train(training)
    inputs = wanting(JOINT.inputs())
    found = JOINT.run(criterion, inputs, torch.full((SMALL.N,), 2))["classification"]
    assert found == 0
    assert not gradients_of(found, inputs)["logits"].any()


@HALF
@TRAINING
def test_half_types_are_widened(dtype: torch.dtype, training: bool) -> None:
    inputs = JOINT.inputs(dtype=dtype)
    inputs["intra_weights"] = inputs["intra_weights"].float()
    exact = {k: v.double() for k, v in inputs.items()}
    ours = JOINT.new(dtype=torch.float32, weight=WEIGHT).train(training)
    found = JOINT.run(ours, inputs, labels())["classification"]
    assert found.dtype == torch.float32
    expected = JOINT.run(JOINT.new(weight=WEIGHT), exact, labels())["classification"]
    assert_close("classification", found, expected, torch.float32)


def test_the_weight_is_state_as_pytorchs_is() -> None:
    ours = JOINT.new(**WEIGHTS)
    state = ours.state_dict()
    assert torch.equal(state["weight"], WEIGHT)
    assert torch.equal(state["distribution.weight"], OTHER)
    assert not any("weight" in key for key in JOINT.new().state_dict())
    assert ours.weight is not WEIGHT
    other = JOINT.new(weight=OTHER, distribution_weight=WEIGHT)
    other.load_state_dict(state)
    assert torch.equal(other.weight, WEIGHT)
    assert ours.half().state_dict()["weight"].dtype == torch.float16


def test_takes_what_was_pickled_before_there_were_weights() -> None:
    old = JOINT.new()
    for module in (old, old.distribution):
        del module._buffers["weight"]
    del old.__dict__["classification"]
    found = pickle.loads(pickle.dumps(old))
    inputs = JOINT.inputs()
    expected = JOINT.run(JOINT.new(), inputs, labels())
    assert_same_state(JOINT.run(found, inputs, labels()), expected)


@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        ([1.0] * 5, TypeError, "must be a torch.Tensor, got list"),
        (torch.ones(5, dtype=torch.int64), TypeError, "must be floating point, got torch.int64"),
        (torch.ones(4), ValueError, r"4"),
        *(
            (torch.tensor([1.0, value, 1, 1, 1]), ValueError, "finite numbers >= 0, got")
            for value in (-1.0, torch.nan, torch.inf)
        ),
    ],
    ids=["list", "integers", "size", "negative", "nan", "infinite"],
)
@pytest.mark.parametrize("name", ["weight", "distribution_weight"])
def test_rejects_weights(name: str, weight: Any, error: type[Exception], message: str) -> None:
    for call in (JOINT.new, partial(JOINT.apply, JOINT.inputs(), labels(), JOINT.drawn_centers())):
        with pytest.raises(error, match=f"`{name}`.*{message}"):
            call(**{name: weight})


@pytest.mark.parametrize(
    ("part", "options"),
    [("", {"weight": WEIGHT}), ("", WEIGHTS), ("distribution", WEIGHTS)],
    ids=["fused", "joint", "distribution"],
)
@BATCH
def test_rejects_a_weight_that_was_put_in_later(
    part: str, options: dict[str, Any], target_of: Any
) -> None:
    criterion = JOINT.new(**options)
    for weight, match in (
        (torch.ones(1), r"`weight` must have shape \(K,\) with K = 5, got \(1,\)"),
        (OTHER.to("meta"), "`weight` must be on cpu"),
    ):
        criterion.get_submodule(part).weight = weight
        with pytest.raises(ValueError, match=match):
            JOINT.run(criterion, JOINT.inputs(), target_of())
        with pytest.raises(ValueError, match=match):
            DISTRIBUTION.apply(
                DISTRIBUTION.inputs(), target_of(), DISTRIBUTION.drawn_centers(), weight=weight
            )


class Focal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gamma: Tensor
        self.register_buffer("gamma", torch.tensor(2.0))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        each = F.cross_entropy(logits, target, reduction="none")
        return ((1 - (-each).exp()) ** self.gamma * each).mean()


def test_a_callable_takes_the_cross_entropys_place() -> None:
    inputs, target = wanting(JOINT.inputs()), labels().clamp_min(0)
    ours, plain = JOINT.new(classification=Focal()), JOINT.new()
    found, other = JOINT.run(ours, inputs, target), JOINT.run(plain, inputs, target)
    expected = Focal()(inputs["logits"], target)
    assert torch.equal(found["classification"], expected)
    for name in ("compactness", "balance", "distribution"):
        assert_close(name, found[name], other[name])
    assert_close("total", found["total"], other["total"] - other["classification"] + expected)
    gradient = gradients_of(found["total"], inputs)["logits"]
    assert_close("gradient", gradient, gradients_of(expected, inputs)["logits"])
    assert "classification.gamma" in ours.state_dict()


def test_a_function_is_given_wide_logits_and_the_target_as_it_is() -> None:
    seen: list[tuple[torch.dtype, Tensor]] = []

    def function(logits: Tensor, target: Tensor) -> Tensor:
        seen.append((logits.dtype, target))
        return logits.sum()

    criterion = FDRLLoss(7, classification=function)
    target = torch.tensor([0, IGNORE_INDEX, 3])
    criterion(FDRLHead(8, 7)(torch.randn(3, 8)), target)
    with torch.autocast("cpu", torch.bfloat16):
        criterion(FDRLHead(8, 7)(torch.randn(3, 8)), target)
    assert [dtype for dtype, _ in seen] == [torch.float32] * 2
    assert all(given is target for _, given in seen)


SCALAR = "`classification` must return a scalar tensor, got"
OURS: dict[str, Any] = {"classification": F.cross_entropy}
TRITON: dict[str, Any] = {"backend": "triton", "dtype": torch.float32}


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"classification": 3}, TypeError, "`classification` must be callable, got int"),
        (OURS | {"weight": WEIGHT}, ValueError, "`weight` is of the cross-entropy"),
        (OURS | {"label_smoothing": 0.1}, ValueError, "`label_smoothing` is of the cross-entropy"),
        (OURS | TRITON, RuntimeError, "`classification` takes the cross-entropy's place"),
        (
            TRITON | {"distribution_weight": OTHER.float()},
            RuntimeError,
            "`distribution` weighs classes",
        ),
        *(
            ({"classification": lambda *_, it=it: it}, ValueError, SCALAR)
            for it in (torch.ones(3), torch.tensor(1), 0.5)
        ),
    ],
)
def test_says_what_cannot_be(options: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        JOINT.run(JOINT.new(**options), JOINT.inputs(dtype=torch.float32), labels())


def test_compiles() -> None:
    inputs, target = JOINT.inputs(dtype=torch.float32), labels()
    ours, plain = (JOINT.new(**WEIGHTS).float() for _ in range(2))
    compiled: Any = torch.compile(ours, backend="aot_eager", fullgraph=True)
    found = vars(compiled(*JOINT.arguments(inputs, target)))
    assert_close("loss", found, JOINT.run(plain, inputs, target), torch.float32)
