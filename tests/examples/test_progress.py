import io
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch

from fer.training.progress import Diverged, Progress, require_finite_state
from fer.training.ranks import Ranks
from small_runs import ALONE


@dataclass(frozen=True)
class Two(Ranks):
    """The first of two processes; what the other one has is known."""

    other: Any = None

    def gather(self, value: Any) -> list[Any]:
        return [value, self.other]


two = partial(Two, 0, 2, ALONE.device)


def after(*totals: float) -> Progress:
    progress = Progress()
    for total in totals:
        progress.add({"total": torch.tensor(total), "accuracy": torch.tensor(50.0)})
    return progress


def test_means_are_those_of_all_steps_and_processes() -> None:
    progress = after(1.0, 3.0)
    progress.seconds, progress.waited = 4.0, 1.0
    found = progress.means(two({"total": 4.0, "accuracy": 100.0}), batch_size=10)
    speed = {"images_per_second": 5.0, "waiting": 0.25, "seconds": 4.0}
    assert found == {"train_total": 3.0, "train_accuracy": 75.0, **speed}


def test_skipped_steps_are_in_no_mean_and_an_epoch_of_them_is_an_end() -> None:
    some, all_skipped = after(1.0, 3.0), Progress()
    for progress in (some, all_skipped):
        progress.seconds = 1.0
        progress.add({})
        progress.require_finite(1, ALONE)
    assert (some.steps, some.skipped) == (3, 1)
    assert some.means(ALONE, batch_size=10)["train_total"] == 2.0
    with pytest.raises(Diverged, match="the gradient scaler skipped all 1 steps of an epoch"):
        all_skipped.means(ALONE, batch_size=10)


def test_what_is_shared_is_the_mean_of_the_sums_and_goes_through_a_checkpoint() -> None:
    progress, file = after(1.0, 3.0), io.BytesIO()
    progress.average_over_ranks(two({"total": torch.tensor(8.0), "accuracy": torch.tensor(0.0)}))
    assert progress.sums == {"total": torch.tensor(6.0), "accuracy": torch.tensor(50.0)}
    torch.save(progress.state_dict(), file)
    file.seek(0)
    assert Progress(**torch.load(file, weights_only=True)) == progress


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_step_without_a_number_is_found_later_and_told(bad: float) -> None:
    after(1.0, 2.0).require_finite(1, ALONE)
    with pytest.raises(Diverged, match=r"in epoch 3, at or before step 3 \(means so far: total"):
        after(1.0, bad, 2.0).require_finite(3, ALONE)


def test_a_state_that_is_no_number_and_another_process_that_found_one_are_an_end() -> None:
    require_finite_state([torch.ones(2), torch.tensor(3)], 1, ALONE)
    with pytest.raises(Diverged, match="in epoch 2, though the loss is one still"):
        require_finite_state([torch.ones(2), torch.tensor([1.0, float("nan")])], 2, ALONE)
    with pytest.raises(Diverged, match="weights, centers or moments"):
        require_finite_state([torch.ones(2)], 1, two(True))
    with pytest.raises(Diverged, match="the loss stopped"):
        after(1.0).require_finite(1, two(True))
