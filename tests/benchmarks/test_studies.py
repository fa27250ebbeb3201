"""The studies: rows that are told apart, differences by seed, and a study from end to end."""

import json
from math import isnan
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import fer_rafdb
from benchmarks.machine import Machine
from benchmarks.studies import command, everything, meaning, plan, tables
from benchmarks.studies.compare import difference
from benchmarks.studies.everything import STUDIES
from benchmarks.studies.plan import FDRL, LINEAR, SCALES, Row, Scale, Study
from benchmarks.studies.store import Trained, path_of, read, write
from benchmarks.studies.tables import as_markdown
from benchmarks.studies.train import options_of
from fer import checkpoint
from fer.model import make_criterion, make_model
from fer.options import Options
from small_runs import SMALL

PARTS = ("command", "compare", "everything", "meaning", "plan", "store", "tables", "train")
CPU = ("--scale", "cpu", "--device", "cpu")
TINY = {**SMALL, "dataset": "synthetic", "width": 8, "backbone": "resnet10", "epochs": 2}


def test_every_script_is_a_study_of_its_name() -> None:
    scripts = {path.stem for path in Path(plan.__file__).parent.glob("*.py")}
    assert sorted(study.name for study in STUDIES) == sorted(scripts - {*PARTS})


def test_one_command_runs_every_study(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(everything, "run", lambda study, _, said: ran.append((study.name, said)))
    monkeypatch.setattr(meaning, "main", lambda said: ran.append(("meaning", said)))
    said = ["--data", "x", "--jobs", "2"]
    everything.main(said)
    assert ran == [(study.name, said) for study in STUDIES] + [("meaning", said)]
    with pytest.raises(SystemExit):
        everything.main([*said, "--rows", "linear"])
    assert len(ran) == len(STUDIES) + 1


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_every_row_is_a_run_that_can_be_made(study: Study, scale: str, tmp_path: Path) -> None:
    for row in study.rows:
        options = options_of(row, scale, 3, tmp_path, tmp_path)
        assert options.seed == 3
        for name, value in row.changes.items():
            assert getattr(options, name) == value
        with torch.device("meta"):
            make_model(options.without_weights(), 8)
            make_criterion(options, 8)


@pytest.mark.parametrize("scale", SCALES)
def test_rows_that_share_their_files_are_the_same(scale: str, tmp_path: Path) -> None:
    known: dict[str, Options] = {}
    for row in (row for study in STUDIES for row in study.rows):
        options = options_of(row, scale, 0, tmp_path, tmp_path)
        assert known.setdefault(row.key(scale), options) == options
    assert len(set(known.values())) == len(known)


def test_a_key_leaves_out_what_is_ordinary_at_its_scale() -> None:
    assert Row("", {"reduction": "mean", "num_latents": 9}).key("cpu") == FDRL.key("cpu") == "fdrl"
    row = Row("", {"num_latents": 3, "lambda_balance": 0.01}, LINEAR)
    assert row.key("gpu") == "lambda-balance=0.01,num-latents=3,from[head=linear]"
    slow = Row("", {"lr": 2e-3})
    assert (slow.key("cpu"), slow.key("gpu")) == ("lr=0.002", "fdrl")


def test_a_row_with_an_unknown_option_has_no_key() -> None:
    with pytest.raises(KeyError):
        Row("", {"num_latent": 3}).key("cpu")


def test_the_difference_is_that_of_a_paired_t_test() -> None:
    ours, theirs = {0: 80.0, 1: 82.5, 2: 81.0, 7: 0.0}, {0: 79.0, 1: 80.0, 2: 80.7, 9: 1.0}
    found = difference(ours, theirs)
    pairs = np.array([[ours[seed], theirs[seed]] for seed in (0, 1, 2)])
    low, high = stats.ttest_rel(*pairs.T).confidence_interval(0.95)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))
    assert found.seeds == 3
    assert not found.sure
    assert difference({0: 2.0, 1: 3.1}, {0: 1.0, 1: 2.0}).sure


def test_the_difference_of_one_seed_has_no_interval() -> None:
    found = difference({4: 80.0}, {4: 81.5})
    assert isnan(found.half)
    assert not found.sure
    assert str(found) == "-1.50"
    with pytest.raises(ValueError, match="no seed is in both"):
        difference({0: 1.0}, {1: 1.0})


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
    monkeypatch.setattr("fer.figures.draw_all", lambda *_: None)


@pytest.mark.usefixtures("_tiny")
def test_a_study_trains_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    after = Row("FDRL, after linear", {}, LINEAR)
    study = Study("tiny", "?", (LINEAR, FDRL, after), against="linear", by_class=("FDRL",))
    results, runs = tmp_path / "results", tmp_path / "runs"
    said: list[Any] = [*CPU, "--data", tmp_path, "--runs", runs, "--results", results]

    def run(*more: Any) -> list[str]:
        command.run(study, "", [*map(str, (*said, *more))])
        return [line for line in capsys.readouterr().out.splitlines() if ", seed " in line]

    assert len(run("--rows", after.label, "--seeds", 1)) == 2  # what it starts from comes along
    only = read(path_of(after, "cpu", 1, results))
    assert only.options["backbone_weights"] == "head=linear"
    assert "data" not in only.options
    assert "test_accuracy" not in only.history[-1]
    assert {"intra_weight", "distance", "saturated"} < only.history[-1].keys()
    assert sum(map(sum, only.confusion)) == only.faces["test"]
    assert len(run()) == 4
    assert run() == []
    again = read(path_of(after, "cpu", 1, results))
    assert again == only
    assert len(run("--rows", "FDRL", "--seeds", 0, "--again")) == 1
    # What a run would go on with is gone, and what others start from stays.
    last = checkpoint.read_checkpoint(runs / "cpu" / "head=linear-seed0" / "last.pt")
    assert "model" in last
    assert not set(fer_rafdb.MOVING) & last.keys()
    table, classes = (
        each.splitlines() for each in as_markdown(study, "cpu", results).split("\n\n")
    )
    assert [line.split(" | ")[0] for line in table[2:]] == [
        "| linear",
        "| FDRL",
        "| FDRL, after linear",
    ]
    assert "±" in table[3].split(" | ")[-1]
    counts = np.array([read(path_of(FDRL, "cpu", seed, results)).confusion for seed in (0, 1)])
    recalls = 100 * counts.diagonal(axis1=1, axis2=2) / counts.sum(2)
    for line, mean, faces, name in zip(
        classes[2:], recalls.mean(0), counts[0].sum(1), only.classes, strict=True
    ):
        cells = line.strip("| ").split(" | ")
        assert cells[:2] == [name, str(faces)]
        assert cells[3].startswith(f"{mean:.2f} ± ")


def _trained(accuracy: float, right: int) -> Trained:
    scores = {"test": {"accuracy": accuracy, "mean_class_accuracy": accuracy}}
    confusion, machine = [[right, 4 - right], [0, 5]], Machine("", 1, "", "", "", "", "", "")
    return Trained("", "cpu", 0, {}, {}, [], scores, confusion, ["happy", "sad"], 0.0, "", machine)


def test_a_difference_is_bold_where_its_interval_excludes_zero() -> None:
    low, high = (
        {seed: _trained(x + seed, 1 + (x + seed) // 30) for seed in (0, 1)} for x in (50, 70)
    )
    assert tables.compared({0: 1.0, 1: 2.0}, {0: 1.0, 1: 1.5}) == "+0.25 ± 3.18"
    assert tables.compared({0: 2.0, 1: 3.1}, {0: 1.0, 1: 2.0}) == "**+1.05 ± 0.64**"
    classes = tables.classes_as_markdown("ours", high, "theirs", low).splitlines()
    assert classes[0] == "| class | test faces | theirs | ours | difference |"
    assert classes[2] == "| happy | 4 | 50.00 ± 0.00 | 75.00 ± 0.00 | **+25.00 ± 0.00** |"
    assert classes[3] == "| sad | 5 | 100.00 ± 0.00 | 100.00 ± 0.00 | +0.00 ± 0.00 |"


@pytest.mark.usefixtures("_tiny")
def test_a_result_is_read_strictly(tmp_path: Path) -> None:
    study = Study("tiny", "?", (LINEAR,), against="linear")
    said = [*CPU, "--data", "", "--runs", tmp_path / "runs", "--results", tmp_path, "--seeds", 0]
    command.run(study, "", [*map(str, said)])
    path = path_of(LINEAR, "cpu", 0, tmp_path)
    found = read(path)
    write(tmp_path / "copy.json", found)
    assert read(tmp_path / "copy.json") == found
    path.write_text(path.read_text().replace('"lr": 0.002,', '"lr": 0.02,', 1))
    with pytest.raises(ValueError, match=r"lr was 0\.02, and the plan has 0\.002"):
        as_markdown(study, "cpu", tmp_path)
    path.write_text(path.read_text().replace('"seconds"', '"second"'))
    with pytest.raises(ValueError, match="seconds"):
        read(path)
    path.write_text(path.read_text().replace('"format": 1', '"format": 0'))
    with pytest.raises(ValueError, match="`format` must be 1"):
        read(path)


@pytest.mark.usefixtures("_tiny")
def test_a_result_from_before_gates_had_a_choice_was_made_with_pytorchs(tmp_path: Path) -> None:
    study = Study(
        "tiny", "?", (LINEAR, FDRL, Row("new", {"gate_init": "uniform"})), against="linear"
    )
    said = [*CPU, "--data", "", "--runs", tmp_path / "runs", "--results", tmp_path, "--seeds", 0]
    command.run(study, "", [*map(str, said)])
    for row in study.rows:
        path = path_of(row, "cpu", 0, tmp_path)
        content = json.loads(path.read_text())
        del content["options"]["gate_init"]
        path.write_text(json.dumps(content))
    assert len(tables.results_of(FDRL, "cpu", tmp_path)) == 1
    with pytest.raises(ValueError, match=r"gate_init was 'linear', and the plan has 'uniform'"):
        as_markdown(study, "cpu", tmp_path)


@pytest.mark.usefixtures("_tiny")
def test_an_unknown_row_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.run(Study("x", "?", (LINEAR,), "linear"), "", ["--data", "x", "--rows", "FDLR"])
    assert "must be of linear; got FDLR" in capsys.readouterr().err
