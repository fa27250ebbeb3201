"""What takes the cross-entropy's place, against NumPy."""

from typing import Any

import numpy as np
import pytest
import torch

from fer.model.build import compute_losses, make_criterion
from fer.model.classification import (
    Classification,
    compute_class_weights,
    count_classes,
    make_classification,
)
from small_runs import batch_of, make_run, options_of

COUNTS = torch.tensor([6, 0, 3, 1])


def oracle(logits: Any, target: Any, weight: Any, added: Any, gamma: float) -> float:
    total = mass = 0.0
    for row, true in zip(logits + added, target, strict=True):
        p = np.exp(row[true]) / np.exp(row).sum()
        total -= weight[true] * (1 - p) ** gamma * np.log(p)
        mass += weight[true]
    return float(total / mass)


def test_weights_are_those_of_the_counts_with_a_mean_of_one() -> None:
    assert count_classes(torch.tensor([0, 2, 2]), 4).tolist() == [1, 0, 2, 0]
    balanced, root = (
        compute_class_weights(COUNTS, "balanced"),
        compute_class_weights(COUNTS, "sqrt"),
    )
    assert balanced is not None
    assert root is not None
    torch.testing.assert_close(balanced, torch.tensor([10 / 18, 0, 10 / 9, 10 / 3]))
    for weight in (balanced, root):
        assert float((weight * COUNTS).sum() / 10) == pytest.approx(1)
    torch.testing.assert_close(root / root[0], (balanced / balanced[0]).sqrt())
    assert compute_class_weights(COUNTS, "none") is None
    assert make_classification(options_of(), COUNTS) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"class_weights": "balanced"},
        {"class_weights": "sqrt"},
        {"logit_adjust": 0.7},
        {"criterion": "focal"},
        {"criterion": "focal", "focal_gamma": 0.5},
        {"criterion": "focal", "class_weights": "balanced"},
        {"criterion": "focal", "logit_adjust": 1.0},
    ],
    ids=str,
)
def test_matches_numpy(changes: dict[str, Any]) -> None:
    logits = torch.randn(9, 4, dtype=torch.float64)
    target = torch.tensor([0, 2, 3, 0, 0, 2, 3, 2, 0])
    options = options_of(head="linear", **changes)
    made = make_classification(options, COUNTS)
    assert made is not None
    weight = compute_class_weights(COUNTS, options.class_weights)
    weighed = np.ones(4) if weight is None else weight.double().numpy()
    # A class without faces has the share of one face.
    added = options.logit_adjust * np.log(np.array([6, 1, 3, 1]) / 11)
    gamma = options.focal_gamma if options.criterion == "focal" else 0.0
    want = oracle(logits.numpy(), target.numpy(), weighed, added, gamma)
    found = made.double()(logits, target)
    assert float(found) == pytest.approx(want, rel=1e-5)
    if options.logit_adjust:
        assert float(made.eval()(logits, target)) != pytest.approx(want, rel=1e-3)


def test_weights_and_smoothing_are_those_of_pytorch() -> None:
    logits, target = torch.randn(8, 4), torch.tensor([0, 2, 3, 0, 0, 2, 3, 2])
    weight = compute_class_weights(COUNTS, "balanced")
    found = Classification(weight=weight, label_smoothing=0.1)(logits, target)
    want = torch.nn.CrossEntropyLoss(weight=weight, label_smoothing=0.1)(logits, target)
    torch.testing.assert_close(found, want)


def test_a_face_that_is_certain_has_a_gradient_that_is_a_number() -> None:
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    Classification(gamma=0.5)(logits, torch.tensor([0])).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("head", ["fdrl", "linear"])
def test_it_takes_the_place_of_the_cross_entropy_in_the_loss(head: str) -> None:
    run = make_run(head=head, criterion="focal", logit_adjust=1.0)
    images, labels, _ = batch_of(run)
    output = run.model(images)
    plain = compute_losses(make_criterion(options_of(head=head), 7), output, labels)
    found = compute_losses(run.criterion, output, labels)
    assert run.criterion.classification is not None
    want = run.criterion.classification(output if head == "linear" else output.logits, labels)
    torch.testing.assert_close(found.get("classification", found["total"]), want)
    assert not torch.allclose(found["total"], plain["total"])
    if head == "fdrl":
        moved = found["classification"] - plain["classification"]
        torch.testing.assert_close(found["total"] - plain["total"], moved)


@pytest.mark.usefixtures("small")
def test_weights_alone_are_those_of_the_joint_loss() -> None:
    run = make_run(head="fdrl", class_weights="balanced")
    images, labels, _ = batch_of(run)
    output = run.model(images)
    assert run.criterion.classification is None
    found = compute_losses(run.criterion, output, labels)["classification"]
    counts = count_classes(run.database.splits["train"].labels, 7)
    want = Classification(weight=compute_class_weights(counts, "balanced"))(output.logits, labels)
    torch.testing.assert_close(found, want)
