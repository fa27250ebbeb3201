"""A batch in parts has the losses, gradients and centers of the whole batch."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fer.training.run import Run
from small_runs import assert_same, batch_of, make_run, use_small_backbone


@pytest.fixture(autouse=True)
def _small_and_double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    use_small_backbone(monkeypatch)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def backward(run: Run) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    images, labels, _ = batch_of(run)
    losses, _ = run.backward(images.double(), labels)
    named = (*run.model.named_parameters(), *run.criterion.named_parameters())
    gradients = {name: each.grad for name, each in named if each.grad is not None}
    return {name: value.detach() for name, value in losses.items()}, gradients


def with_statistics_of_the_past(**changes: Any) -> Run:
    """Make a run whose batch normalization does not look at the batch, so that parts may not."""
    run = make_run(**changes)
    run.model[0].eval()
    return run


@pytest.mark.parametrize("head", ["fdrl", "linear"])
@pytest.mark.parametrize("accumulate", [2, 3, 8])
def test_parts_give_what_the_whole_batch_gives(head: str, accumulate: int) -> None:
    whole = with_statistics_of_the_past(head=head, center_update="gradient")
    parts = with_statistics_of_the_past(head=head, center_update="gradient", accumulate=accumulate)
    (want_losses, want), (got_losses, got) = backward(whole), backward(parts)
    torch.testing.assert_close(got_losses, want_losses)
    assert ("compactness.centers.value" in want) == (head == "fdrl")
    torch.testing.assert_close(got, want)


def test_centers_move_once() -> None:
    whole, parts = with_statistics_of_the_past(), with_statistics_of_the_past(accumulate=4)
    for _ in range(2):  # In the first batch they start at the data; in the second they move.
        backward(whole)
        backward(parts)
    want = whole.criterion.state_dict()
    assert want["compactness.centers.value"].abs().sum() > 0
    torch.testing.assert_close(parts.criterion.state_dict(), want)


def test_running_statistics_move_once_for_each_part_and_are_followed_again_afterwards() -> None:
    run, by_hand = make_run(accumulate=4), make_run()
    backward(run)
    images, *_ = batch_of(by_hand)
    with torch.no_grad():
        for part in images.double().tensor_split(4):
            by_hand.model[0](part)
    want = dict(by_hand.model[0].named_buffers())
    assert want["first.1.num_batches_tracked"] == 4
    assert_same(dict(run.model[0].named_buffers()), want)
    layers = [each for each in run.model.modules() if isinstance(each, nn.BatchNorm2d)]
    assert [layer.track_running_stats for layer in layers] == [True, True]
