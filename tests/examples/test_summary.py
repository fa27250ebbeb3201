from pathlib import Path
from typing import Any

import pytest
import torch

from fdrl_layers import intra_spread
from fer.data import Database
from fer.evaluation import summary
from small_runs import ALONE, options_of


def row(epoch: int, test: float, valid: float | None = None) -> dict[str, Any]:
    scores = {"test": test} | ({} if valid is None else {"valid": valid})
    row = {"epoch": epoch, "seconds": 2.0} | {f"{name}_accuracy": scores[name] for name in scores}
    return row | {f"{name}_mean_class_accuracy": scores[name] for name in scores}


def test_the_best_epoch_is_the_first_best_on_valid_whatever_test_says() -> None:
    history = [row(1, 90, valid=50), row(2, 60, valid=70), row(3, 99, valid=70)]
    assert summary.find_best_epoch(history)["epoch"] == 2
    result = summary.summarize(history, options_of(), {}, ALONE.device)
    assert result["best_chosen_on"] == "valid"
    assert summary.format_result(result).endswith("; chosen on valid")


def test_without_valid_the_last_epoch_is_the_result_and_the_best_is_called_too_good() -> None:
    history = [row(1, 90), row(2, 60)]
    result = summary.summarize(history, options_of(), {"test": 9}, ALONE.device)
    assert result["last"]["epoch"] == 2
    assert result["seconds"] == 4.0
    last, best = summary.format_result(result).splitlines()
    assert last == "last epoch (2): test 60.00 % (mean class 60.00 %)"
    assert best.startswith("best epoch (1): test 90.00 %")
    assert best.endswith("chosen on test, and so too good: the last epoch is the result")


@pytest.mark.parametrize("dead", [True, False])
def test_a_training_ends_with_a_sentence_where_intra_w_has_died(dead: bool) -> None:
    weights = torch.tensor([[1.0, 1.0], [1.01 if dead else 2.0, 1.0]])
    result = summary.summarize([row(1, 90)], options_of(), {}, ALONE.device)
    assert len(summary.format_result(result).splitlines()) == 2
    result["intra_spread"] = summary.intra_spread_to_dict(intra_spread(weights))
    assert summary.format_result(result).endswith("Intra-RM does nothing here.") == dead


def test_an_epoch_in_a_line() -> None:
    losses = {"classification": 1.9, "compactness": 3.0, "balance": 0.5, "distribution": 12.0}
    learned = losses | {"total": 2.5, "accuracy": 33.3}
    given = row(3, 60, valid=70) | {f"train_{name}": value for name, value in learned.items()}
    given |= {"images_per_second": 456.7, "waiting": 0.051}
    assert summary.format_epoch(given, 40) == (
        "epoch  3/40  loss 2.500  (classification 1.9, compactness 3, balance 0.5, distribution 12)"
        "  train 33.3 %  valid 70.0 % (mean class 70.0 %)  test 60.0 % (mean class 60.0 %)"
        "  2 s (457 images/s, 5 % waiting)"
    )


def test_mean_and_deviation_of_a_sample() -> None:
    assert summary.mean_and_deviation([1.0, 3.0]) == pytest.approx((2.0, 2**0.5))
    assert summary.mean_and_deviation([5.0]) == (5.0, 0.0)


@pytest.mark.parametrize(
    ("changes", "warned"),
    [
        ({}, True),
        ({"gate_init": "uniform"}, False),
        ({"reduction": "mean"}, False),
        ({"backbone_weights": "faces.pt"}, False),
        ({"imagenet": True}, False),
        ({"head": "linear"}, False),
    ],
)
def test_greeting_warns_of_what_is_known_to_end_badly(
    changes: dict[str, Any], warned: bool
) -> None:
    options = options_of(**{"reduction": "sum", "gate_init": "linear", **changes})
    said = summary.describe_run(Database("mine", (), {}), options, ALONE, Path("here"))
    assert said.startswith("mine: ")
    assert ("backbone from scratch hardly learns" in said) is warned
