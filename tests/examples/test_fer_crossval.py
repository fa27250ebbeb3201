"""Cross-validation by the command line, on a tree with the real numbers of CK+."""

import csv
import signal
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest

import fer_crossval
from fer.data import Database
from fer.data.table import read_all_faces
from fer.evaluation import predictions as evaluation
from fer.model import checkpoint
from fer.options import Options, load_options
from fer.training.run import Run, open_run
from image_trees import CK48_CLIPS, write_ck48, write_tree
from small_runs import use_small_backbone

QUICK = ["--image-size=16", "--batch-size=32", "--limit=64", "--epochs=1", "--device=cpu"]


@pytest.fixture(scope="module")
def ck48(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ck48(tmp_path_factory.mktemp("ck"), side=12)


@pytest.fixture(scope="module")
def finished(ck48: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    with pytest.MonkeyPatch.context() as patched:
        use_small_backbone(patched)
        fer_crossval.main(command(ck48, folder))
    return folder


def command(root: Path, folder: Path, *arguments: str) -> list[str]:
    data = ["--dataset", "ckplus", "--data", str(root), "--folds", "3"]
    return [*data, *QUICK, *arguments, "--out", str(folder)]


def kept(folder: Path) -> list[evaluation.StoredEvaluation]:
    return [evaluation.read_evaluation(path) for path in sorted(folder.glob("fold*/evaluation.pt"))]


def test_every_image_is_tested_once_and_nobody_twice(finished: Path, ck48: Path) -> None:
    tested = [[name.split("/")[-1] for name in each.faces.names] for each in kept(finished)]
    people = [{name.split("_")[0] for name in fold} for fold in tested]
    assert len(tested) == 3
    names = [name for fold in tested for name in fold]
    assert sorted(names) == sorted(path.name for path in ck48.glob("CK+48/*/*.png"))
    assert len(names) == 981
    assert len(set.union(*people)) == sum(map(len, people)) == 118


def test_folds_and_summary_agree_with_what_each_fold_kept(finished: Path) -> None:
    summary = checkpoint.read_json(finished / "summary.json")
    rows = list(csv.DictReader((finished / "folds.csv").read_text().splitlines()))
    assert [int(row["fold"]) for row in rows] == [1, 2, 3]
    assert [{name: float(value) for name, value in row.items()} for row in rows] == summary["folds"]
    for row, each in zip(summary["folds"], kept(finished), strict=True):
        scores = each.evaluation.scores
        assert row["faces"] == len(each.faces)
        assert row["test_accuracy"] == pytest.approx(scores.accuracy)
        assert row["test_mean_class_accuracy"] == pytest.approx(scores.mean_class_accuracy)
        alone = checkpoint.read_json(finished / f"fold{row['fold']:02}" / "summary.json")
        assert alone["options"]["fold"] == row["fold"]
        assert alone["faces"] == {"train": 64, "test": row["faces"]}
    for name in ("test_accuracy", "test_mean_class_accuracy"):
        found = [float(row[name]) for row in rows]
        assert summary[name] == pytest.approx({"mean": fmean(found), "deviation": stdev(found)})
    assert summary["options"] == load_options(finished).to_dict()
    assert summary["printed"] == [97.15, 99.54]


def test_the_confusion_matrix_is_that_of_all_folds_together(finished: Path) -> None:
    summary = checkpoint.read_json(finished / "summary.json")
    confusion = np.zeros((7, 7), int)
    for each in kept(finished):
        np.add.at(confusion, (each.evaluation.labels, each.evaluation.predictions), 1)
    assert summary["confusion"] == confusion.tolist()
    assert summary["faces"] == confusion.sum() == 981
    # The dump says "happy", and its folders have the alphabet's order as the classes do.
    assert confusion.sum(1).tolist() == [3 * clips for clips in CK48_CLIPS.values()]
    assert summary["pooled_accuracy"] == pytest.approx(100 * confusion.trace() / 981)
    recall = confusion.diagonal() / confusion.sum(1)
    assert summary["pooled_mean_class_accuracy"] == pytest.approx(100 * recall.mean())
    assert (finished / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_going_on_with_what_has_ended_trains_nothing(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (finished / "summary.json").read_bytes()
    monkeypatch.delattr(fer_crossval, "open_run")
    fer_crossval.main(["--resume", str(finished)])
    assert (finished / "summary.json").read_bytes() == before
    said = capsys.readouterr().out
    assert "3 folds: " in said
    assert "all 981 faces pooled: " in said
    assert "the paper prints 97.15 % for its baseline and 99.54 % for FDRL" in said


@pytest.mark.usefixtures("small")
def test_stopped_within_a_fold_it_goes_on_there_as_if_never_stopped(
    finished: Path,
    ck48: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, begun, step = tmp_path / "stopped", list[int | None](), Run.step

    def begin(options: Options, *others: Any, **named: Any) -> Run:
        begun.append(options.fold)
        return open_run(options, *others, **named)

    def step_in_the_second_is_stopped(run: Run, *batch: Any) -> Any:
        if begun == [1, 2]:
            signal.raise_signal(signal.SIGTERM)
        return step(run, *batch)

    monkeypatch.setattr(fer_crossval, "open_run", begin)
    monkeypatch.setattr(Run, "step", step_in_the_second_is_stopped)
    with pytest.raises(SystemExit) as stopped:
        fer_crossval.main(command(ck48, folder))
    assert stopped.value.code == 128 + signal.SIGTERM
    assert f"stopped; to go on: --resume {folder}" in capsys.readouterr().out
    assert not (folder / "folds.csv").exists()
    assert not (folder / "fold03").exists()
    first = (folder / "fold01" / "last.pt").stat().st_mtime_ns
    fer_crossval.main(["--resume", str(folder)])
    assert begun == [1, 2, 2, 3]
    assert (folder / "fold01" / "last.pt").stat().st_mtime_ns == first
    assert (folder / "folds.csv").read_text() == (finished / "folds.csv").read_text()
    assert (folder / "summary.json").read_text() == (finished / "summary.json").read_text()


def test_folds_of_a_database_that_changed_since_are_not_pooled(finished: Path) -> None:
    options = load_options(finished)
    database = read_all_faces(options)
    faces = database.splits["all"]
    less = faces.select((faces.labels >= 0).nonzero()[1:, 0])
    rows = [{"fold": fold, **dict.fromkeys(fer_crossval.COLUMNS, 0.0)} for fold in (1, 2, 3)]
    with pytest.raises(ValueError, match=r"do not test each face of .* once: .*another folder"):
        fer_crossval.pool_folds(options, finished, rows, Database("", ("a",) * 7, {"all": less}))
    with pytest.raises(ValueError, match=r"do not test each face of .* once"):
        fer_crossval.pool_folds(options, finished, rows[1:], database)


def test_rejects_bad_data_and_weights_before_making_a_folder(ck48: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_tree(tmp_path / split, ["a/x1_1.png", "b/x2_1.png"])
    splits = ["--dataset=folder", f"--data={tmp_path}", "--classes=a,b"]
    for arguments, message in (
        (["--folds=119"], "--folds must be from 2 to the number of people, 118, got 119"),
        (["--data=nowhere"], "root: there is no folder nowhere"),
        (["--backbone-weights=nowhere.pth"], r"there is no file nowhere\.pth of weights"),
        (splits, "folder comes with a training and a test split"),
    ):
        with pytest.raises(SystemExit, match=f"^error: {message}"):
            fer_crossval.main(command(ck48, tmp_path / "run", *arguments))
        assert not (tmp_path / "run").exists()


def test_rejects_a_folder_in_use_and_the_folder_of_a_single_run(
    finished: Path, ck48: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="exists; go on with --resume"):
        fer_crossval.main(command(ck48, finished))
    in_use = pytest.raises(SystemExit, match=r"another process writes to .*finished")
    with checkpoint.lock_folder(finished), in_use:
        fer_crossval.main(["--resume", str(finished)])
    plain = load_options(finished).to_dict()
    for changes in ({"fold": 2}, {"dataset": "sfew"}):
        checkpoint.write_json(tmp_path / "config.json", plain | changes)
        with pytest.raises(SystemExit):
            fer_crossval.main(["--resume", str(tmp_path)])
        assert "it holds a single run, which fer_rafdb.py goes on" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
