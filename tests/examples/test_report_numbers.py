"""What a report says of a run: accuracies and their intervals, curves, and what was run."""

from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fer.report import facts, numbers
from fer.report.curves import make_charts
from fer.report.folder import ReportedRun
from fer.report.page import format_number, format_percent, format_signed
from report_runs import draw_evaluation, plain_faces, write_and_read


def wilson(right: int, count: int) -> numbers.Interval:
    """Solve the score test for its ends: Wilson 1927."""
    z, p = 1.959963984540054, right / count
    middle = p + z * z / (2 * count)
    half = z * sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    low, high = (100 * (middle + side * half) / (1 + z * z / count) for side in (-1, 1))
    return numbers.Interval(100 * p, low, high)


@pytest.mark.parametrize(("right", "count"), [(0, 7), (7, 7), (3, 7), (2390, 3137)])
def test_shares_have_wilsons_interval(right: int, count: int) -> None:
    wanted = pytest.approx(vars(wilson(right, count)), abs=1e-9)
    assert vars(numbers.wilson_interval(right, count)) == wanted


def test_mean_class_accuracy_is_drawn_anew_within_each_class() -> None:
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1, 2], [200, 60, 20])
    right = rng.random(280) < np.array([0.9, 0.6, 0.3])[labels]
    predictions = np.where(right, labels, (labels + 1) % 3)
    found = numbers.mean_class_accuracy(labels, predictions)
    shares = np.array([right[labels == k].mean() for k in range(3)])
    assert found.value == pytest.approx(100 * shares.mean())
    # To draw n faces anew from a class is to draw how many of them are right.
    again = rng.binomial([200, 60, 20], shares, size=(20_000, 3)) / [200, 60, 20]
    ends = np.percentile(100 * again.mean(axis=1), [2.5, 97.5])
    assert (found.low, found.high) == pytest.approx(ends, abs=0.6)
    assert found == numbers.mean_class_accuracy(labels, predictions)
    one_of_a_class = numbers.mean_class_accuracy(np.array([0, 0, 1]), np.array([0, 0, 1]))
    assert one_of_a_class == numbers.Interval(100, 100, 100)


def test_class_rows_count_by_hand() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 2])
    predictions = np.array([0, 0, 1, 2, 1, 0, 2])
    first, second, third, fourth = numbers.make_class_rows(labels, predictions, 4)
    assert (first.faces, first.predicted) == (4, 3)
    assert first.recall.value == pytest.approx(50)
    assert first.precision == pytest.approx(100 * 2 / 3)
    assert first.f1 == pytest.approx(100 * 2 * (2 / 3) * 0.5 / (2 / 3 + 0.5))
    assert second.precision == pytest.approx(50)
    assert third.recall.value == pytest.approx(100)
    # Neither there nor predicted: nothing is defined.
    assert np.isnan([fourth.recall.value, fourth.precision, fourth.f1]).all()


def test_the_result_comes_first_and_the_best_on_test_is_called_too_good(tmp_path: Path) -> None:
    run = write_and_read(tmp_path)
    result, best, train = numbers.list_accuracies(run)
    labels, predictions = run.evaluation.labels, run.evaluation.predictions
    assert (result.when, result.note) == ("last epoch (3)", "the result")
    assert result.accuracy.value == pytest.approx(100 * (labels == predictions).mean())
    assert (best.split, best.when) == ("test", "best epoch (2)")
    assert "too good" in best.note
    # One more of 60 is right than at the end, by the row of the second epoch.
    right = round(run.summary["best"]["test_accuracy"] * 0.6)
    assert best.accuracy.low == pytest.approx(wilson(right, 60).low)
    assert (train.split, train.accuracy.low) == ("train", None)
    # The last epoch is not shown twice where it is the best.
    alone = write_and_read(tmp_path / "alone", epochs=1)
    assert [row.split for row in numbers.list_accuracies(alone)] == ["test", "train"]


def test_an_epoch_chosen_on_valid_is_too_good_on_valid_alone(tmp_path: Path) -> None:
    found = numbers.list_accuracies(write_and_read(tmp_path, valid=True))
    said = {(row.split, row.when): row.note for row in found}
    assert said["test", "best epoch (2)"] == "chosen on valid"
    assert "too good" in said["valid", "best epoch (2)"]
    assert ("valid", "last epoch (3)") in said


def test_a_comparison_counts_the_faces_that_only_one_gets_right(tmp_path: Path) -> None:
    faces = plain_faces(40)
    labels, found = faces.labels.numpy(), draw_evaluation(faces)

    def right_in(which: range) -> ReportedRun:
        said = np.where(np.isin(np.arange(40), which), labels, (labels + 1) % 7)
        evaluation = replace(found, probabilities=np.eye(7, dtype=np.float32)[said])
        return write_and_read(tmp_path / f"{which}", 40, found=evaluation)

    run = right_in(range(10, 40))
    compared = numbers.compare(run, right_in(range(16)))
    assert (compared.only_run, compared.only_baseline) == (24, 10)
    assert compared.difference.value == pytest.approx(100 * 14 / 40)
    # Twice the chance of at most 10 heads in 34 throws.
    throws = np.random.default_rng(0).binomial(34, 0.5, 400_000)
    assert compared.p == pytest.approx(2 * (throws <= 10).mean(), abs=2e-3)
    assert (compared.difference.low or 0) > 0
    same = numbers.compare(run, run)
    assert (same.difference.value, same.p) == (0, 1)


def test_curves_hold_every_epoch_and_the_mean_over_folds(tmp_path: Path) -> None:
    run = write_and_read(tmp_path, valid=True, epochs=4)
    found = {chart.title: chart for chart in make_charts(run)}
    assert [line.name for line in found["Accuracy"].lines] == ["train", "valid", "test"]
    assert found["Loss"].lines[0].values == pytest.approx([3, 1.5, 1, 0.75])
    assert "Compactness loss" in found
    doubled = [{name: 3 * value for name, value in row.items()} for row in run.histories[0]]
    both = replace(run, histories=(run.histories[0], doubled))
    assert make_charts(both)[2].lines[0].values == pytest.approx([6, 3, 2, 1.5])
    # The linear head has no terms.
    plain = make_charts(write_and_read(tmp_path / "linear", head="linear"))
    assert [chart.title for chart in plain] == ["Accuracy", "Mean class accuracy", "Loss"]


SHOWN = {0.09834: "0.0983", 0.0: "0.00", 63.518: "63.5", 1234.5: "1234", -0.5: "-0.500"}
SHOWN |= {0.00021: "2.10e-04", float("nan"): "\N{EN DASH}"}


@pytest.mark.parametrize(("value", "shown"), SHOWN.items())
def test_numbers_keep_three_digits_that_count(value: float, shown: str) -> None:
    assert format_number(value) == shown


def test_signs_and_percentages_are_written_as_in_print() -> None:
    assert [format_signed(v) for v in (0.207, -0.207, -0.001)] == [
        "+0.21",
        "\N{MINUS SIGN}0.21",
        "0.00",
    ]
    assert format_percent(61.25) == "61.2\N{NO-BREAK SPACE}%"
    assert format_percent(float("nan")) == "\N{EN DASH}"


ALIVE = {"lambda_peak": 0.5, "lambda_apart": 2.0, "normalize_latents": True}
FROZEN = {"backbone_weights": "x/faces.pt", "freeze_backbone": True}


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("Backbone", {}, "ResNet-18 from random weights"),
        ("Backbone", {"backbone": "resnet10", "width": 16}, "ResNet-10 of 16 channels from"),
        ("Backbone", {"small_stem": True}, "ResNet-18 with a small stem from"),
        ("Backbone", {"last_stride": 1}, "ResNet-18 with a last stride of 1 from"),
        ("Backbone", FROZEN, "ResNet-18 from faces.pt, frozen"),
        ("Head", {"head": "linear"}, "linear: the paper's baseline"),
        ("Head", {"head": "linear", "batch_norm": True}, "batch normalization before the last"),
        ("Head", {"head": "plain"}, "plain: two layers, as many parameters as FDRL and 128"),
        ("Head", {"head": "plain", "hidden": 64}, "plain: two layers, 64 and 128"),
        ("Head", {"intra": False}, "without Intra-RM"),
        ("Head", {"self_feature": "message"}, "messages in equation 11"),
        ("Head", {"attach": "attention"}, "on maps by attention"),
        ("Head", ALIVE, "gates of normalized latents"),
        ("Losses", ALIVE, "λ peak 0.5, λ apart 2; centers"),
    ],
    ids=str,
)
def test_says_what_was_run(name: str, changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    assert words in dict(facts.list_facts(write_and_read(tmp_path, **changes)))[name]


OTHERS: list[dict[str, Any]] = [{"head": "plain"}, {"intra": False}, {"self_feature": "message"}]
OTHERS += [{"attach": "places"}, {"batch_norm": True}, {"dataset": "ferplus"}]


@pytest.mark.parametrize(
    ("changes", "printed"),
    [({}, 89.47), ({"head": "linear"}, 86.93), *((other, None) for other in OTHERS)],
    ids=str,
)
def test_what_the_paper_prints_is_that_of_its_own_heads(
    changes: dict[str, Any], printed: float | None, tmp_path: Path
) -> None:
    options = {"dataset": "rafdb", "data": "x", **changes}
    assert facts.paper_accuracy(write_and_read(tmp_path, **options)) == printed
