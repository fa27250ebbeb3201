"""What votes come to: each rule by hand and against a slow loop, and trainings on votes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fer.data import read_database
from fer.data.faces import Database
from fer.data.votes import CLASSES, draw_labels, majority_label, make_training_targets, vote_shares
from fer.model.build import compute_losses
from fer.model.classification import Classification
from fer.training import run as training
from fer.training.batches import TrainingBatches, cache_faces, limit_faces
from fer.training.ranks import Ranks
from small_runs import ALONE, batch_of, make_run, make_stopped_run, options_of, same_runs, train_run

RULES: dict[str, tuple[tuple[int, ...], int, dict[int, float]]] = {
    "unanimous": ((0, 10, 0, 0, 0, 0, 0, 0, 0, 0), 1, {1: 1}),
    "last expression": ((0, 0, 0, 0, 0, 0, 0, 6, 0, 4), 7, {7: 1}),
    "majority only after single votes are zeroed": ((4, 0, 1, 1, 1, 1, 1, 1, 0, 0), 0, {0: 1}),
    "single votes of unknown and no face are zeroed": ((0, 0, 2, 0, 0, 0, 0, 0, 1, 1), 2, {2: 1}),
    "two votes are not zeroed": ((0, 0, 0, 4, 2, 2, 0, 0, 1, 1), -1, {3: 0.5, 4: 0.25, 5: 0.25}),
    "exactly half": ((0, 0, 0, 5, 0, 3, 2, 0, 0, 0), -1, {3: 0.625, 5: 0.375}),
    "one above half": ((0, 0, 0, 5, 0, 2, 2, 0, 1, 0), 3, {3: 5 / 9, 5: 2 / 9, 6: 2 / 9}),
    "plurality below half": ((4, 3, 3, 0, 0, 0, 0, 0, 0, 0), -1, {0: 0.4, 1: 0.3, 2: 0.3}),
    "plurality over unknown": ((5, 0, 0, 0, 0, 0, 0, 0, 3, 2), -1, {}),
    "three quarters are enough": ((6, 2, 0, 0, 0, 0, 0, 0, 0, 0), 0, {0: 1}),
    "less is not": ((5, 2, 0, 0, 0, 0, 0, 0, 0, 0), 0, {0: 5 / 7, 1: 2 / 7}),
    "single votes are zeroed": ((6, 1, 1, 1, 1, 0, 0, 0, 0, 0), 0, {0: 1}),
    "a tie": ((5, 5, 0, 0, 0, 0, 0, 0, 0, 0), -1, {0: 0.5, 1: 0.5}),
    "a fourth is not reached": ((3, 3, 2, 0, 0, 2, 0, 0, 0, 0), -1, {}),
    "four in a tie": ((2, 2, 2, 2, 0, 0, 0, 0, 0, 0), -1, {}),
    "unknown ends the list": ((4, 0, 2, 0, 0, 0, 0, 0, 3, 0), -1, {}),
    "unknown that is not reached counts as votes": ((7, 0, 0, 0, 0, 0, 0, 0, 2, 0), 0, {0: 1}),
    "expressions before unknown are kept": ((5, 0, 0, 0, 0, 0, 0, 0, 2, 2), 0, {0: 1}),
    "those tied with unknown are kept": ((3, 3, 0, 0, 0, 0, 0, 0, 3, 0), -1, {0: 0.5, 1: 0.5}),
    "half is not enough": ((5, 0, 0, 0, 0, 0, 0, 0, 5, 0), -1, {}),
    "unknown": ((3, 0, 0, 0, 0, 0, 0, 0, 7, 0), -1, {}),
    "not a face": ((0, 0, 0, 0, 0, 0, 0, 0, 0, 10), -1, {}),
    "all are outliers": ((1,) * 10, -1, {}),
    "no votes": ((0,) * 10, -1, {}),
}


@pytest.mark.parametrize(("votes", "label", "shares"), RULES.values(), ids=RULES)
def test_rules_by_hand(votes: tuple[int, ...], label: int, shares: dict[int, float]) -> None:
    assert majority_label(torch.tensor([votes])).tolist() == [label]
    found = vote_shares(torch.tensor([votes]))
    assert found.dtype == torch.float32
    assert found[0].tolist() == pytest.approx([shares.get(i, 0) for i in range(8)])


def slow_majority(votes: list[int]) -> int:
    """The rule of the FER+ authors, one step after the other."""
    counts = [0 if count <= 1 else count for count in votes]
    best = max(range(10), key=counts.__getitem__)
    return best if counts[best] > 0.5 * sum(counts) and best < 8 else -1


def slow_shares(votes: list[int]) -> list[float]:
    """The rule of the FER+ authors, a vote after the other."""
    left = [count if count >= 2 else 0 for count in votes]
    total, taken = sum(left), [0.0] * 8
    while sum(taken) < 0.75 * total and sum(each > 0 for each in taken) < 3:
        most = max(left)
        tied = [column for column in range(10) if left[column] == most]
        for column in tied:
            if column < 8:
                taken[column], left[column] = float(most), 0
        if tied[-1] >= 8:
            break
    if not sum(taken) > 0.5 * total or sum(each > 0 for each in taken) > 3:
        return [0.0] * 8
    return [each / sum(taken) for each in taken]


def test_rules_match_slow_loops_and_go_together() -> None:
    generator = torch.Generator().manual_seed(0)
    # Few taggers over skewed columns, so that every branch is common.
    chances = torch.rand(5000, 10, generator=generator) ** 6
    drawn = torch.multinomial(chances, 10, replacement=True, generator=generator)
    votes = torch.nn.functional.one_hot(drawn, 10).sum(dim=1)
    labels, shares = majority_label(votes), vote_shares(votes)
    assert labels.tolist() == [slow_majority(row) for row in votes.tolist()]
    assert set(labels.tolist()) == set(range(-1, 8))
    np.testing.assert_allclose(shares, [slow_shares(row) for row in votes.tolist()], rtol=1e-6)
    assert {0, 1, 2, 3} == set(shares.count_nonzero(1).tolist())
    there = labels >= 0
    assert torch.equal(shares[there].argmax(1), labels[there])
    # And some faces have shares alone.
    assert (shares[~there].sum(1) > 0).any()


def test_majority_label_leaves_its_input_alone_and_takes_none() -> None:
    votes = torch.tensor([[1] * 10], dtype=torch.uint8)
    assert majority_label(votes).dtype == torch.int64
    assert votes.tolist() == [[1] * 10]
    assert majority_label(votes[:0]).tolist() == []


@pytest.mark.parametrize(
    ("votes", "error", "match"),
    [
        (torch.zeros(2, 10), TypeError, r"must be integers, got torch\.float32"),
        (torch.ones(2, 10, dtype=torch.bool), TypeError, r"must be integers, got torch\.bool"),
        (torch.zeros(2, 8).long(), ValueError, r"must be \(n, 10\), got \(2, 8\)"),
        (torch.zeros(10).long(), ValueError, r"must be \(n, 10\), got \(10,\)"),
        (torch.full((1, 10), -3), ValueError, r"must not be negative, got -3"),
    ],
)
def test_rejects_what_are_no_votes(votes: Tensor, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=f"votes {match}"):
        majority_label(votes)


def test_labels_are_drawn_as_often_as_their_shares_say() -> None:
    shares = torch.tensor([[0.7, 0.0, 0.3], [0.0, 1.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([draw_labels(shares, generator) for _ in range(4000)])
    often = torch.nn.functional.one_hot(drawn, 3).double().mean(0)
    np.testing.assert_allclose(often, shares, atol=0.03)
    assert (often[shares == 0] == 0).all()


def voted(database: Database) -> Database:
    """Return drawn faces as if people had voted on them: seven for the label, three for another."""
    faces = database.splits["train"]
    own = torch.nn.functional.one_hot(faces.labels, len(database.classes))
    train = replace(faces, shares=0.7 * own + 0.3 * own.roll(1, 1))
    return replace(database, splits={**database.splits, "train": train})


@pytest.fixture
def votes(monkeypatch: pytest.MonkeyPatch, small: None) -> None:
    """Give drawn faces votes, and let options ask for them."""
    monkeypatch.setattr(training, "read_database", lambda *a, **k: voted(read_database(*a, **k)))
    monkeypatch.setattr("fer.options.Options._check_data", lambda self: None)


@pytest.mark.usefixtures("votes")
@pytest.mark.parametrize("head", ["fdrl", "linear"])
def test_a_run_learns_the_shares(head: str) -> None:
    run = make_run(head=head, targets="votes")
    images, targets, labels = batch_of(run)
    assert targets.shape == (8, 7)
    torch.testing.assert_close(targets.gather(1, labels[:, None]), torch.full((8, 1), 0.7))
    output = run.model(images)
    logits = output if head == "linear" else output.logits
    losses = compute_losses(run.criterion, output, targets)
    found = losses.get("classification", losses["total"])
    want = -(targets.double() * logits.double().log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(found.double(), want, rtol=1e-5, atol=1e-6)
    assert {"total", "accuracy"} <= run.step(images, targets, labels).keys()


@pytest.mark.usefixtures("votes")
def test_accuracy_is_that_of_the_labels() -> None:
    run = make_run(targets="drawn")
    images, targets, labels = batch_of(run)
    assert not torch.equal(targets, labels)
    with torch.no_grad():
        before = run.model.train()(images).logits.argmax(1)
    found = run.step(images, targets, labels)["accuracy"]
    assert float(found) == pytest.approx(100 * float((before == labels).float().mean()))


@pytest.mark.usefixtures("votes")
def test_a_vote_is_drawn_anew_each_epoch_and_alike_on_every_process() -> None:
    faces = limit_faces(voted(read_database(options_of())), options_of()).splits["train"]
    options = options_of(targets="drawn")
    whole, again, second = (TrainingBatches(faces, options, epoch, ALONE) for epoch in (1, 1, 2))
    assert torch.equal(whole.targets, again.targets)
    assert not torch.equal(whole.targets, second.targets)
    off = (whole.targets - faces.labels) % len(CLASSES[:7])
    assert (off <= 1).all()
    ranks = [Ranks(rank, 2, ALONE.device) for rank in range(2)]
    halves = (TrainingBatches(faces, options, 1, each).iterate_from(0) for each in ranks)
    for batch, *parts in zip(whole.iterate_from(0), *halves, strict=True):
        for one, *both in zip(batch, *parts, strict=True):
            assert torch.equal(one, torch.cat(both))
    # The order and the crops of a training do not depend on what it learns.
    plain = next(iter(TrainingBatches(faces, options_of(), 1, ALONE).iterate_from(0)))
    assert torch.equal(plain[0], next(iter(again.iterate_from(0)))[0])


@pytest.mark.usefixtures("votes")
@pytest.mark.parametrize("targets", ["votes", "drawn"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"class_weights": "balanced"},
        {"head": "linear", "class_weights": "balanced", "label_smoothing": 0.1},
        {"sampler": "balanced", "accumulate": 2},
        {"logit_adjust": 1.0},
    ],
    ids=str,
)
def test_a_run_over_buffers_and_one_that_was_stopped_are_the_same(
    targets: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    whole, buffers, parts = (tmp_path / name for name in ("whole", "buffers", "parts"))
    train_run(whole, targets=targets, **changes)
    train_run(buffers, targets=targets, buffers=True, **changes)
    make_stopped_run(parts, 2, targets=targets, **changes)
    train_run(parts, targets=targets, **changes)
    same_runs(whole, buffers, parts)


def test_weights_of_classes_and_shares_are_as_in_pytorch() -> None:
    torch.manual_seed(0)
    logits, shares = torch.randn(5, 4), torch.rand(5, 4).softmax(1)
    weight = torch.tensor([0.5, 1.0, 0.0, 2.0])
    for smoothing in (0.0, 0.1):
        found = Classification(weight=weight, label_smoothing=smoothing)(logits, shares)
        want = torch.nn.functional.cross_entropy(logits, shares, weight, label_smoothing=smoothing)
        torch.testing.assert_close(found, want)
    with pytest.raises(ValueError, match=r"the focal loss wants class indices \(N,\), got shares"):
        Classification(gamma=2.0)(logits, shares)


def test_faces_without_votes_are_refused() -> None:
    faces = read_database(options_of()).splits["train"]
    with pytest.raises(ValueError, match="--targets votes needs faces with shares of votes"):
        make_training_targets(faces, "votes", 0)
    assert make_training_targets(faces, "majority", 0) is faces.labels
    assert cache_faces(faces, options_of(), ALONE) is faces
