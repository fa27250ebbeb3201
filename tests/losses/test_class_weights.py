"""Weights of classes in the joint loss, and what may stand in the cross-entropy's place."""

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from comparing import assert_close
from fdrl_layers import DistributionLoss, FDRLHead, FDRLLoss, functional
from loss_cases import DISTRIBUTION, JOINT, SMALL, array, gradients_of, labels, shares, wanting
from strategies import IGNORE_INDEX

WEIGHT = torch.tensor([0.3, 2.0, 0.0, 1.5, 4.0], dtype=torch.float64)
OTHER = torch.tensor([1.0, 0.5, 3.0, 0.25, 2.0], dtype=torch.float64)
BATCH = pytest.mark.parametrize("target_of", [labels, shares])
SMOOTHING = pytest.mark.parametrize("smoothing", [0.0, 0.2])


def joint(**options: Any) -> FDRLLoss:
    found = JOINT.new(**options)
    assert isinstance(found, FDRLLoss)
    return found


@BATCH
@SMOOTHING
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_is_that_of_pytorch(target_of: Any, smoothing: float, training: bool) -> None:
    ours = joint(weight=WEIGHT, label_smoothing=smoothing).train(training)
    theirs = nn.CrossEntropyLoss(WEIGHT, label_smoothing=smoothing, ignore_index=IGNORE_INDEX)
    inputs, target = wanting(JOINT.inputs()), target_of()
    found, expected = JOINT.run(ours, inputs, target), theirs(inputs["logits"], target)
    assert_close("classification", found["classification"], expected)
    gradient = gradients_of(found["classification"], inputs)["logits"]
    assert_close("gradient", gradient, gradients_of(expected, inputs)["logits"])


@BATCH
@SMOOTHING
def test_matches_oracle(target_of: Any, smoothing: float) -> None:
    inputs, target, centers = JOINT.inputs(), target_of(), JOINT.drawn_centers()
    options: dict[str, Any] = {"weight": WEIGHT, "distribution_weight": OTHER}
    arrays = {name: array(value) for name, value in options.items()}
    expected = JOINT.expect(inputs, target, centers, label_smoothing=smoothing, **arrays)
    found = JOINT.apply(inputs, target, centers, label_smoothing=smoothing, **options)
    results = [found]
    for training in (True, False):
        module = JOINT.loaded(centers, label_smoothing=smoothing, **options).train(training)
        results.append(JOINT.run(module, inputs, target))
    for result in results:
        for name, value in expected.items():
            assert_close(name, result[name], torch.tensor(value, dtype=torch.float64))


@BATCH
def test_distribution_loss_matches_oracle(target_of: Any) -> None:
    inputs, target, centers = DISTRIBUTION.inputs(), target_of(), DISTRIBUTION.drawn_centers()
    expected = DISTRIBUTION.expect(inputs, target, centers, weight=array(OTHER))["loss"]
    found = DISTRIBUTION.apply(inputs, target, centers, weight=OTHER)["loss"]
    module = DISTRIBUTION.loaded(centers, weight=OTHER)
    for value in (found, DISTRIBUTION.run(module, inputs, target)["loss"]):
        assert_close("loss", value, torch.tensor(expected, dtype=torch.float64))


def test_centers_move_as_without_weights() -> None:
    weighted = joint(weight=WEIGHT, distribution_weight=OTHER)
    fused, plain = joint(weight=WEIGHT), joint()
    for seed in range(3):
        inputs, target = JOINT.inputs(seed=seed), labels(seed=seed)
        for criterion in (weighted, fused, plain):
            JOINT.run(criterion, inputs, target)
    for criterion in (weighted, fused):
        for key, value in plain.state_dict().items():
            assert_close(key, criterion.state_dict()[key].double(), value.double())


def test_equal_weights_change_nothing() -> None:
    inputs, target = JOINT.inputs(), labels()
    seven = torch.full((SMALL.K,), 7.0)
    found = JOINT.run(joint(weight=seven, distribution_weight=seven), inputs, target)
    for name, value in JOINT.run(joint(), inputs, target).items():
        assert_close(name, found[name], value)


@SMOOTHING
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_a_batch_of_no_weight_has_no_loss(smoothing: float, training: bool) -> None:
    inputs, target = wanting(JOINT.inputs()), torch.full((SMALL.N,), 2)
    found = JOINT.run(
        joint(weight=WEIGHT, label_smoothing=smoothing).train(training), inputs, target
    )
    assert found["classification"] == 0
    assert torch.equal(
        gradients_of(found["classification"], inputs)["logits"], torch.zeros(SMALL.N, SMALL.K)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types_are_widened(dtype: torch.dtype) -> None:
    inputs = {k: v.to(dtype) for k, v in JOINT.inputs().items()}
    inputs["intra_weights"] = inputs["intra_weights"].float()
    exact = {k: v.double() for k, v in inputs.items()}
    for training in (True, False):
        ours = joint(dtype=torch.float32, weight=WEIGHT).train(training)
        found = JOINT.run(ours, inputs, labels())["classification"]
        assert found.dtype == torch.float32
        expected = JOINT.run(joint(weight=WEIGHT), exact, labels())["classification"]
        assert_close("classification", found, expected, torch.float32)


def test_the_weight_is_state_as_pytorchs_is() -> None:
    ours = joint(weight=WEIGHT, distribution_weight=OTHER)
    state = ours.state_dict()
    assert torch.equal(state["weight"], WEIGHT)
    assert torch.equal(state["distribution.weight"], OTHER)
    assert not any("weight" in key for key in joint().state_dict())
    assert ours.weight is not WEIGHT
    other = joint(weight=OTHER, distribution_weight=WEIGHT)
    other.load_state_dict(state)
    assert other.weight is not None
    assert torch.equal(other.weight, WEIGHT)
    assert ours.half().state_dict()["weight"].dtype == torch.float16


def test_takes_what_was_pickled_before_there_were_weights() -> None:
    old = joint()
    for module in (old, old.distribution):
        del module._buffers["weight"]
    del old.__dict__["classification"]
    found = pickle.loads(pickle.dumps(old))
    inputs = JOINT.inputs()
    assert torch.equal(
        JOINT.run(found, inputs, labels())["total"], JOINT.run(joint(), inputs, labels())["total"]
    )


@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        ([1.0] * 5, TypeError, "must be a torch.Tensor, got list"),
        (torch.ones(5, dtype=torch.int64), TypeError, "must be floating point, got torch.int64"),
        (torch.ones(4), ValueError, r"4"),
        (torch.tensor([1.0, -1.0, 1, 1, 1]), ValueError, "finite numbers >= 0, got"),
        (torch.tensor([1.0, torch.nan, 1, 1, 1]), ValueError, "finite numbers >= 0, got"),
        (torch.tensor([1.0, torch.inf, 1, 1, 1]), ValueError, "finite numbers >= 0, got"),
    ],
    ids=["list", "integers", "size", "negative", "nan", "infinite"],
)
@pytest.mark.parametrize("name", ["weight", "distribution_weight"])
def test_rejects_weights(name: str, weight: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"`{name}`.*{message}"):
        joint(**{name: weight})
    inputs, centers = JOINT.inputs(), JOINT.drawn_centers()
    with pytest.raises(error, match=f"`{name}`.*{message}"):
        JOINT.apply(inputs, labels(), centers, **{name: weight})


def test_rejects_a_weight_on_another_device() -> None:
    for name, part in (("weight", ""), ("distribution_weight", "distribution")):
        criterion = joint(weight=WEIGHT, **({name: OTHER} if part else {}))
        criterion.get_submodule(part).weight = OTHER.to("meta")
        with pytest.raises(ValueError, match="`weight` must be on cpu"):
            JOINT.run(criterion, JOINT.inputs(), labels())
    with pytest.raises(ValueError, match="`weight` must be on cpu"):
        functional.distribution_loss(
            torch.ones(2, 3), torch.tensor([0, 1]), torch.ones(5, 3), weight=OTHER.to("meta")
        )


@pytest.mark.parametrize("part", ["", "distribution"])
@BATCH
def test_rejects_a_weight_of_another_size_that_was_put_in_later(part: str, target_of: Any) -> None:
    criterion = joint(weight=WEIGHT, distribution_weight=OTHER)
    criterion.get_submodule(part).weight = torch.ones(1)
    with pytest.raises(ValueError, match=r"`weight` must have shape \(K,\) with K = 5, got \(1,\)"):
        JOINT.run(criterion, JOINT.inputs(), target_of())


class Focal(nn.Module):
    """A loss with a buffer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma: Tensor
        self.register_buffer("gamma", torch.tensor(2.0))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        each = F.cross_entropy(logits, target, reduction="none")
        return ((1 - (-each).exp()) ** self.gamma * each).mean()


def test_a_callable_takes_the_cross_entropys_place() -> None:
    inputs, target = wanting(JOINT.inputs()), labels().clamp_min(0)
    ours, plain = joint(classification=Focal()), joint()
    found, other = JOINT.run(ours, inputs, target), JOINT.run(plain, inputs, target)
    expected = Focal()(inputs["logits"], target)
    assert torch.equal(found["classification"], expected)
    for name in ("compactness", "balance", "distribution"):
        assert_close(name, found[name], other[name])
    assert_close("total", found["total"], other["total"] - other["classification"] + expected)
    assert_close(
        "gradient",
        gradients_of(found["total"], inputs)["logits"],
        gradients_of(expected, inputs)["logits"],
    )
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


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"classification": F.cross_entropy}, "`classification` takes the cross-entropy's place"),
        ({"distribution_weight": OTHER.float()}, "`distribution` weighs classes"),
    ],
    ids=["classification", "distribution_weight"],
)
def test_triton_says_why_it_cannot(options: dict[str, Any], reason: str) -> None:
    criterion = joint(dtype=torch.float32, backend="triton", **options)
    inputs = {k: v.float() for k, v in JOINT.inputs().items()}
    with pytest.raises(RuntimeError, match=reason):
        JOINT.run(criterion, inputs, labels())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"classification": 3}, TypeError, "`classification` must be callable, got int"),
        ({"weight": WEIGHT}, ValueError, "`weight` is of the cross-entropy"),
        ({"label_smoothing": 0.1}, ValueError, "`label_smoothing` is of the cross-entropy"),
    ],
    ids=["type", "weight", "smoothing"],
)
def test_rejects_options(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        joint(**{"classification": F.cross_entropy} | options)


@pytest.mark.parametrize("given", [torch.ones(3), torch.tensor(1), 0.5], ids=["N", "int", "float"])
def test_rejects_what_is_no_scalar(given: Any) -> None:
    criterion = joint(classification=lambda logits, target: given)
    with pytest.raises(ValueError, match="`classification` must return a scalar tensor, got"):
        JOINT.run(criterion, JOINT.inputs(), labels())


def test_compiles() -> None:
    inputs, target = {k: v.float() for k, v in JOINT.inputs().items()}, labels()
    options = {
        "dtype": torch.float32,
        "weight": WEIGHT.float(),
        "distribution_weight": OTHER.float(),
    }
    ours, plain = joint(**options), joint(**options)
    found = torch.compile(ours, backend="aot_eager", fullgraph=True)(
        *JOINT.arguments(inputs, target)
    )
    assert_close("loss", vars(found), JOINT.run(plain, inputs, target), torch.float32)


def test_distribution_loss_alone_takes_weights() -> None:
    loss = DistributionLoss(2, 1, weight=torch.tensor([1.0, 3.0]))
    found = loss(torch.tensor([[0.0], [2.0], [5.0]]), torch.tensor([0, 0, 1]))
    assert_close("loss", found, torch.tensor((1 + 1 + 3 * 0) / 5))
