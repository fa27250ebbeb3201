"""Tries at an Intra-W that lives: against NumPy, and what a training does with each."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fdrl_layers import FDRLHead, IntraRelation
from fer.model.build import compute_losses, make_criterion
from fer.model.intra_variation import (
    NormalizedIntraRelation,
    VariedIntraLoss,
    class_separation_loss,
    entropy_loss,
)
from small_runs import (
    assert_same,
    batch_of,
    make_run,
    make_stopped_run,
    options_of,
    same_runs,
    train_run,
)


def test_the_peak_loss_is_the_entropy_of_each_face() -> None:
    weights = torch.rand(5, 4, dtype=torch.float64) + 0.01
    rows = [row / row.sum() for row in weights.numpy()]
    entropies = [-(shares * np.log(shares)).sum() for shares in rows]
    assert float(entropy_loss(weights)) == pytest.approx(np.mean(entropies) / np.log(4))
    assert float(entropy_loss(torch.full((3, 4), 0.1))) == pytest.approx(1)
    assert float(entropy_loss(torch.eye(4))) == 0
    assert torch.autograd.gradcheck(entropy_loss, weights.requires_grad_())


def slow_apart(weights: Any, shares: Any) -> float:
    """Take the classes apart, pair by pair."""
    classes = [k for k in range(shares.shape[1]) if shares[:, k].sum() > 0]
    means = {k: (shares[:, k, None] * weights).sum(0) / shares[:, k].sum() for k in classes}
    pairs = [(a, b) for a in classes for b in classes if a < b]
    gaps = [weights.shape[1] * np.linalg.norm(means[a] - means[b]) for a, b in pairs]
    return float(np.mean([max(0.0, 1 - gap) ** 2 for gap in gaps])) if pairs else 0.0


def test_classes_are_taken_apart_up_to_a_margin() -> None:
    torch.manual_seed(0)
    weights = torch.rand(9, 4, dtype=torch.float64) / 6
    labels = torch.tensor([0, 0, 2, 2, 2, 5, 5, 0, 2])
    shares = torch.rand(9, 6, dtype=torch.float64).softmax(1)
    for target, slow in ((labels, F.one_hot(labels, 6).double()), (shares, shares)):
        found = class_separation_loss(weights, target, 6)
        assert float(found) == pytest.approx(slow_apart(weights.numpy(), slow.numpy()))
        assert 0 < float(found) < 1
    assert float(class_separation_loss(weights, torch.zeros(9, dtype=torch.int64), 6)) == 0
    assert float(class_separation_loss(100 * weights, labels, 6)) == 0
    weights.requires_grad_()
    assert torch.autograd.gradcheck(lambda each: class_separation_loss(each, labels, 6), weights)


def test_gates_of_normalized_latents_do_not_see_their_size() -> None:
    torch.manual_seed(0)
    plain, normed = (kind(16, 3) for kind in (IntraRelation, NormalizedIntraRelation))
    normed.load_state_dict(plain.state_dict())
    latents = torch.rand(5, 3, 16)
    features, weights = normed(latents)
    _, want = plain((latents - latents.mean(-1, keepdim=True)) / latents.std(-1, False)[..., None])
    torch.testing.assert_close(weights, want, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(features, weights[..., None] * latents)
    torch.testing.assert_close(normed(7 * latents)[1], weights, rtol=1e-3, atol=1e-6)
    assert not torch.allclose(plain(7 * latents)[1], plain(latents)[1], rtol=1e-2)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("targets", ["labels", "shares"])
def test_what_they_weigh_is_in_the_total_and_its_slope(targets: str) -> None:
    run = make_run(lambda_peak=0.25, lambda_apart=2.0)
    assert isinstance(run.criterion, VariedIntraLoss)
    plain = make_criterion(options_of(), 7)
    assert not isinstance(plain, VariedIntraLoss)
    images, labels, _ = batch_of(run)
    target = labels if targets == "labels" else F.one_hot(labels, 7) * 0.7 + 0.3 / 7
    output = run.model(images)
    found, before = (
        compute_losses(run.criterion, output, target),
        compute_losses(plain, output, target),
    )
    weights = output.intra_weights
    more = 0.25 * entropy_loss(weights) + 2 * class_separation_loss(weights, target, 7)
    totals = found["total"], before["total"] + more
    torch.testing.assert_close(*totals)
    slopes = [torch.autograd.grad(each, weights, retain_graph=True) for each in totals]
    torch.testing.assert_close(*slopes)
    for name in ("classification", "compactness", "balance", "distribution"):
        torch.testing.assert_close(found[name], before[name])


@pytest.mark.usefixtures("small")
def test_a_normalized_head_is_built_called_and_read_back(tmp_path: Path) -> None:
    changes = {"normalize_latents": True, "lambda_peak": 0.1}
    train_run(tmp_path / "whole", **changes)
    head = make_stopped_run(tmp_path / "parts", 0, **changes).model[1]
    assert isinstance(head, FDRLHead)
    choice = head.backend_choice(torch.randn(2, head.in_features))
    assert "NormalizedIntraRelation" in str(choice.reason)
    train_run(tmp_path / "parts", **changes)
    same_runs(tmp_path / "whole", tmp_path / "parts")
    # The same seed draws the same weights, so that only what the gates see differs.
    plain, normed = (make_run(normalize_latents=normalize) for normalize in (False, True))
    assert_same(normed.model.state_dict(), plain.model.state_dict())
