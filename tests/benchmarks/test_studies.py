"""The studies: rows that are told apart, differences by seed, and a study from end to end."""

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import isnan
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks.machine import Machine
from benchmarks.studies import __main__ as command, meaning, plan, schedule, tables
from benchmarks.studies.compare import compare_scores
from benchmarks.studies.meaning import (
    ROWS as MEANT,
)
from benchmarks.studies.plan import SCALES, Row, Scale, Study
from benchmarks.studies.questions import FDRL, LINEAR, LINEAR_AGAIN, STUDIES
from benchmarks.studies.schedule import Place, add_missing_starts, plan_jobs, train_all
from benchmarks.studies.store import STUDIES as RESULTS, TrainedRun, load_runs, save_run
from benchmarks.studies.tables import as_markdown
from benchmarks.studies.train import make_options
from fer.model import checkpoint
from fer.model.build import make_criterion, make_model
from fer.options import Options
from fer.training.run import RESUME_STATE
from small_runs import SMALL

CPU = ("--scale", "cpu", "--device", "cpu")
AFTER = Row("FDRL, after linear", {}, LINEAR)
TINY_STUDIES = (
    Study("tiny", "?", (LINEAR, FDRL, AFTER), baseline="linear", by_class=("FDRL",)),
    Study("new", "?", (LINEAR, FDRL, Row("new", {"gate_init": "uniform"}))),
)
TINY = {**SMALL, "dataset": "synthetic", "width": 8, "backbone": "resnet10", "epochs": 2}
ROWS = [row for study in STUDIES for row in study.rows]

Pairs = list[tuple[str, int]]


def trained(accuracy: float = 50.0, right: int = 1, **changes: Any) -> TrainedRun:
    scores = {"test": {"accuracy": accuracy, "mean_class_accuracy": accuracy}}
    confusion, machine = [[right, 4 - right], [0, 5]], Machine("", 1, "", "", "", "", "", "")
    found = TrainedRun(
        "", "cpu", 0, {}, {}, [], scores, confusion, ["happy", "sad"], 0.0, "", machine
    )
    return replace(found, **changes)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place("cpu", None, tmp_path, "cpu", tmp_path)


@pytest.fixture
def train_nothing(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """What the command calls to train, and trains nothing."""
    found = Mock(return_value=[])
    monkeypatch.setattr(command, "train_all", found)
    monkeypatch.setattr(meaning, "measure_seeds", lambda *_: None)
    return found


def pairs_of(jobs: list[schedule.Job]) -> Pairs:
    return [(job.row.key("cpu"), job.seed) for job in jobs]


def test_one_command_runs_every_study(train_nothing: Mock, tmp_path: Path) -> None:
    places = ["--results", str(tmp_path), "--runs", str(tmp_path)]
    for names in (["all"], ["votes", "gates"]):
        command.main([*names, "--data", "x", "--scale", "cpu", "--seeds", "0", *places])
    every, two = (pairs_of(call.args[0]) for call in train_nothing.call_args_list)
    assert {(row.key("cpu"), 0) for row in (*ROWS, *MEANT.values())} <= {*every}
    assert len({*every}) == len(every)
    assert two[:2] == [("head=linear", 0), ("head=linear,targets=votes", 0)]


def test_the_command_lists_studies(capsys: pytest.CaptureFixture[str]) -> None:
    command.main([])
    listed = capsys.readouterr().out
    for study in STUDIES:
        assert f"{study.name}: {study.question}" in listed
        assert all(f"    {row.label}\n" in listed for row in study.rows)


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ("centres --data x", "NAME must be of full, .*, or all by itself; got centres"),
        ("centers", "--data DIR is needed"),
        ("--data x --rows linear votes", "NAME is needed, in front of the options"),
        ("centers --data x --jobs 0", "--jobs must be at least 1, got 0"),
        ("centers --data x --minutes nan", "--minutes must be above 0 and finite"),
        ("centers --data x --minutes -1", "--minutes must be above 0 and finite"),
        ("all votes --data x", "or all by itself; got all"),
        ("centers gates --data x --rows FDRL", "--rows needs the name of one study"),
        ("meaning --data x --rows FDRL", "--rows needs the name of one study"),
        ("baseline --data x --rows FDLR", r"must be of: linear; .*\. Got: FDLR"),
    ],
)
def test_the_command_refuses_what_it_does_not_know(
    said: str, match: str, train_nothing: Mock, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.main(said.split())
    assert re.search(match, capsys.readouterr().err)
    train_nothing.assert_not_called()


@pytest.mark.parametrize("scale", SCALES)
def test_every_row_can_be_run_and_rows_that_share_their_files_are_the_same(
    scale: str, tmp_path: Path
) -> None:
    known: dict[str, Options] = {}
    for row in ROWS:
        options = make_options(row, scale, 3, tmp_path, tmp_path)
        assert options.seed == 3
        assert row.overrides == {name: getattr(options, name) for name in row.overrides}
        with torch.device("meta"):
            make_model(options.without_weights(), 8)
            make_criterion(options, 8)
        assert known.setdefault(row.key(scale), options) == options
    assert len(set(known.values())) == len(known)


def test_a_key_leaves_out_what_is_ordinary_at_its_scale_and_knows_every_option() -> None:
    assert Row("", {"reduction": "mean", "num_latents": 9}).key("cpu") == FDRL.key("cpu") == "fdrl"
    row = Row("", {"num_latents": 3, "lambda_balance": 0.01}, LINEAR)
    assert row.key("gpu") == "lambda-balance=0.01,num-latents=3,from[head=linear]"
    slow = Row("", {"lr": 2e-3})
    assert (slow.key("cpu"), slow.key("gpu")) == ("lr=0.002", "fdrl")
    with pytest.raises(KeyError):
        Row("", {"num_latent": 3}).key("cpu")


def test_the_difference_is_that_of_a_paired_t_test_and_one_seed_has_no_interval() -> None:
    ours, theirs = {0: 80.0, 1: 82.5, 2: 81.0, 7: 0.0}, {0: 79.0, 1: 80.0, 2: 80.7, 9: 1.0}
    found = compare_scores(ours, theirs)
    pairs = np.array([[ours[seed], theirs[seed]] for seed in (0, 1, 2)])
    low, high = stats.ttest_rel(*pairs.T).confidence_interval(0.95)
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx(
        (low, high)
    )
    assert (found.seeds, found.is_significant) == (3, False)
    assert compare_scores({0: 2.0, 1: 3.1}, {0: 1.0, 1: 2.0}).is_significant
    found = compare_scores({4: 80.0}, {4: 81.5})
    assert (isnan(found.half_width), found.is_significant, str(found)) == (True, False, "-1.50")
    with pytest.raises(ValueError, match="no seed is in both"):
        compare_scores({0: 1.0}, {1: 1.0})


def test_a_study_refuses_rows_that_cannot_be_told_apart() -> None:
    with pytest.raises(ValueError, match="same label"):
        Study("x", "?", (LINEAR, LINEAR), "linear")
    with pytest.raises(ValueError, match="no row other"):
        Study("x", "?", (LINEAR,), "other")
    with pytest.raises(ValueError, match="no row FDLR"):
        Study("x", "?", (LINEAR, FDRL), "linear", by_class=("FDLR",))


@pytest.fixture
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    scale = Scale("tiny", TINY, seeds=2)
    monkeypatch.setattr(plan, "SCALES", MappingProxyType({"cpu": scale}))
    monkeypatch.setattr(command, "SCALES", plan.SCALES)
    monkeypatch.setattr(command, "find_study", {each.name: each for each in TINY_STUDIES}.get)
    monkeypatch.setattr(command, "NAMES", [each.name for each in TINY_STUDIES])
    monkeypatch.setattr("fer.evaluation.figures.draw_all", lambda *_: None)


def run_tiny(name: str, folder: Path, *more: Any) -> Path:
    """Run a tiny study and return where its results are."""
    results = folder / "results"
    places = ["--data", folder, "--runs", folder / "runs", "--results", results]
    command.main([*map(str, (name, *CPU, *places, *more))])
    return results


@pytest.mark.usefixtures("_tiny")
def test_a_study_trains_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study, runs, results = TINY_STUDIES[0], tmp_path / "runs", tmp_path / "results"

    def run(*more: Any) -> list[str]:
        run_tiny("tiny", tmp_path, *more)
        return [line for line in capsys.readouterr().out.splitlines() if ", seed " in line]

    def found() -> dict[tuple[str, int], TrainedRun]:
        return {(run.key, run.seed): run for run in load_runs("cpu", results).values()}

    after = (AFTER.key("cpu"), 1)
    assert len(run("--rows", AFTER.label, "--seeds", 1)) == 2  # what it starts from comes along
    only = found()[after]
    assert only.options["backbone_weights"] == "head=linear"
    assert "data" not in only.options
    assert "test_accuracy" not in only.history[-1]
    assert {"intra_weight", "distance", "saturated"} < only.history[-1].keys()
    assert sum(map(sum, only.confusion)) == only.faces["test"]
    assert only.intra_spread is not None
    assert only.intra_spread["num_latents"] == TINY["num_latents"]
    assert found()["head=linear", 1].intra_spread is None
    assert len(run()) == 4
    assert run() == []
    assert found()[after] == only
    assert len(run("--rows", "FDRL", "--seeds", 0, "--again")) == 1
    assert len(found()) == 6
    # What a run would go on with is gone, and what others start from stays.
    last = checkpoint.read_checkpoint(runs / "cpu" / "head=linear-seed0" / "last.pt")
    assert "model" in last
    assert not set(RESUME_STATE) & last.keys()
    parts = as_markdown(study, "cpu", results).split("\n\n")
    table, classes = (part.splitlines() for part in parts)
    named = [line.split(" | ")[0] for line in table[2:]]
    assert named == ["| linear", "| FDRL", "| FDRL, after linear"]
    assert "±" in table[3].split(" | ")[-1]
    counts = np.array([found()["fdrl", seed].confusion for seed in (0, 1)])
    recalls = 100 * counts.diagonal(axis1=1, axis2=2) / counts.sum(2)
    columns = (recalls.mean(0), counts[0].sum(1), only.classes)
    for line, mean, faces, name in zip(classes[2:], *columns, strict=True):
        cells = line.strip("| ").split(" | ")
        assert cells[:2] == [name, str(faces)]
        assert cells[3].startswith(f"{mean:.2f} ± ")


def test_a_difference_is_bold_where_its_interval_excludes_zero() -> None:
    low, high = (
        {seed: trained(x + seed, 1 + (x + seed) // 30) for seed in (0, 1)} for x in (50, 70)
    )
    assert tables.format_difference({0: 1.0, 1: 2.0}, {0: 1.0, 1: 1.5}) == "+0.25 ± 3.18"
    assert tables.format_difference({0: 2.0, 1: 3.1}, {0: 1.0, 1: 2.0}) == "**+1.05 ± 0.64**"
    classes = tables.classes_as_markdown("ours", high, "theirs", low).splitlines()
    assert [classes[0], *classes[2:4]] == [
        "| class | test faces | theirs | ours | difference |",
        "| happy | 4 | 50.00 ± 0.00 | 75.00 ± 0.00 | **+25.00 ± 0.00** |",
        "| sad | 5 | 100.00 ± 0.00 | 100.00 ± 0.00 | +0.00 ± 0.00 |",
    ]


def test_results_of_a_scale_are_files_of_sorted_lines(tmp_path: Path) -> None:
    runs = [trained(key=key, seed=seed) for key in "ba" for seed in (10, 2)]
    for run in runs:
        save_run(run, "first", tmp_path)
    path = tmp_path / "cpu" / "first.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    pairs = [(line["key"], line["seed"]) for line in lines]
    assert pairs == [("a", 2), ("a", 10), ("b", 2), ("b", 10)]
    # A run that another study asked for first stays where it is.
    better = replace(runs[0], seconds=7.0)
    assert save_run(better, "second", tmp_path) == path
    assert save_run(replace(better, key="c"), "second", tmp_path).name == "second.jsonl"
    found = load_runs("cpu", tmp_path)
    assert found["b", 10] == better
    assert len(found) == 5
    (tmp_path / "cpu" / "third.jsonl").write_text(path.read_text())
    with pytest.raises(ValueError, match=r"third\.jsonl: \('a', 2\) is in another file too"):
        load_runs("cpu", tmp_path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (('"seconds"', '"second"'), "x.jsonl, line 1: TrainedRun wants"),
        (('"format": 1', '"format": 0'), "x.jsonl, line 1: `format` must be 1"),
        (('"seed": 0', '"seed": "0"'), "x.jsonl, line 1: `seed` must be"),
        (None, r"x\.jsonl, line 2: .*seed 0 is there twice"),
    ],
)
def test_a_result_is_read_strictly(
    change: tuple[str, str] | None, match: str, tmp_path: Path
) -> None:
    path = save_run(trained(), "x", tmp_path)
    text = path.read_text()
    path.write_text(text.replace(*change) if change else 2 * text)
    with pytest.raises(ValueError, match=match):
        load_runs("cpu", tmp_path)


def test_the_results_that_are_kept_are_those_of_the_rows() -> None:
    for scale in SCALES:
        for row in ROWS:
            tables.read_results(row, scale)
        assert {path.suffix for path in (RESULTS / scale).glob("*")} <= {".jsonl"}


@pytest.mark.usefixtures("_tiny")
def test_a_result_of_other_options_or_of_before_there_was_one(tmp_path: Path) -> None:
    results = run_tiny("new", tmp_path, "--seeds", 0)
    path = results / "cpu" / "new.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        # A run of before gates had a choice had PyTorch's.
        del line["options"]["gate_init"]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert len(tables.read_results(FDRL, "cpu", results)) == 1
    with pytest.raises(ValueError, match=r"gate_init was 'linear', and the plan has 'uniform'"):
        as_markdown(TINY_STUDIES[1], "cpu", results)
    path.write_text(path.read_text().replace('"lr": 0.002,', '"lr": 0.02,', 1))
    with pytest.raises(ValueError, match=r"fdrl, seed 0: lr was 0\.02, and the plan has 0\.002"):
        tables.read_results(FDRL, "cpu", results)


def test_jobs_are_in_the_order_in_which_they_are_wanted(place: Place) -> None:
    rows = (LINEAR_AGAIN, FDRL, LINEAR)
    jobs = plan_jobs("x", rows, (0, 1), place)
    keys, pairs = ["head=linear", LINEAR_AGAIN.key("cpu"), "fdrl"], pairs_of(jobs)
    assert pairs == [(key, seed) for seed in (0, 1) for key in keys]
    # Wanted for itself too, it is kept.
    assert not any(job.is_start for job in jobs)
    assert plan_jobs("x", (LINEAR_AGAIN,), (0,), place)[0].is_start
    save_run(trained(key="fdrl"), "x", place.results)
    assert len(plan_jobs("x", rows, (0, 1), place)) == 5
    assert len(plan_jobs("x", rows, (0, 1), place, again=True)) == 6
    assert add_missing_starts(jobs, place) == jobs


@pytest.mark.parametrize(("minutes", "ran"), [(None, 6), (0, 0), (4.5, 4), (5.01, 5), (90, 6)])
def test_no_run_begins_that_would_end_after_the_budget(
    minutes: float | None, ran: int, monkeypatch: pytest.MonkeyPatch, place: Place
) -> None:
    done: Pairs = []

    def take_a_minute(row: Row, scale: str, seed: int, *_: object) -> TrainedRun:
        done.append((row.key(scale), seed))
        return trained(key=row.key(scale), seed=seed, seconds=60.0)

    monkeypatch.setattr(schedule, "train", take_a_minute)
    clock = SimpleNamespace(monotonic=lambda: 60.0 * len(done))
    monkeypatch.setattr(schedule, "time", clock)
    jobs = plan_jobs("x", (LINEAR_AGAIN, FDRL, LINEAR), (0, 1), place)
    assert train_all(jobs, place, minutes=minutes) == jobs[ran:]
    assert done == pairs_of(jobs[:ran])
    assert len(load_runs("cpu", place.results)) == ran


def test_what_runs_beside_a_failure_is_kept(monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
    begun = []

    def train(row: Row, scale: str, seed: int, *_: object) -> TrainedRun:
        begun.append(seed)
        if seed == 0:
            raise OSError("no space left")
        time.sleep(0.3)
        return trained(key=row.key(scale), seed=seed)

    monkeypatch.setattr(schedule, "train", train)
    monkeypatch.setattr(schedule, "_workers", ThreadPoolExecutor)
    with pytest.raises(OSError, match="no space left"):
        train_all(plan_jobs("x", (FDRL,), (0, 1, 2, 3), place), place, num_workers=2)
    assert [seed for _, seed in load_runs("cpu", place.results)] == [1]
    assert sorted(begun) == [0, 1]


def test_a_start_that_is_known_keeps_its_result(
    monkeypatch: pytest.MonkeyPatch, place: Place
) -> None:
    known = trained(key="head=linear")
    save_run(known, "x", place.results)

    def train(row: Row, scale: str, seed: int, *_: object) -> TrainedRun:
        return trained(70.0, 2, key=row.key(scale), seed=seed)

    monkeypatch.setattr(schedule, "train", train)
    train_all(plan_jobs("x", (LINEAR_AGAIN,), (0,), place), place)
    found = load_runs("cpu", place.results)
    assert (found["head=linear", 0], len(found)) == (known, 2)


@pytest.mark.slow
@pytest.mark.usefixtures("_tiny")
def test_runs_side_by_side_wait_for_what_they_start_from(tmp_path: Path) -> None:
    # Workers are new processes, which know the real scales; so the smallest of real runs.
    small = {**TINY, "gate_init": "linear"}
    start, fdrl = (Row(row.label, {**small, **row.overrides}, row.start) for row in (LINEAR, FDRL))
    place = Place("cpu", tmp_path, tmp_path / "runs", "cpu", tmp_path / "results")
    jobs = plan_jobs("x", (Row("after", small, start), fdrl), (0,), place)
    assert train_all(jobs, place, num_workers=2) == []
    assert len(load_runs("cpu", place.results)) == 3
