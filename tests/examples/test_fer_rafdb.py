import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import fer_rafdb
from fer import checkpoint

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "fer_rafdb.py"
SMALL = ["--faces", "160", "--image-size", "32", "--batch-size", "32", "--epochs", "2"]


def run(folder: Path, *arguments: str) -> dict[str, Any]:
    return fer_rafdb.main([*SMALL, "--out", str(folder), *arguments])


def rows_of(folder: Path) -> list[dict[str, str]]:
    path = folder / "metrics.csv"
    return list(csv.DictReader(path.read_text().splitlines())) if path.is_file() else []


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    run(folder)
    return folder


def test_a_run_leaves_all_that_it_promises(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "config.json",
        "metrics.csv",
        "summary.json",
        "last.pt",
        "best.pt",
        "evaluation.pt",
        "lock",
        "confusion.png",
        "intra_weights.png",
    }
    assert [row["epoch"] for row in rows_of(finished)] == ["1", "2"]
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["last"]["epoch"] == 2
    assert summary["best_chosen_on"] == "test"
    best = max(float(row["test_accuracy"]) for row in rows_of(finished))
    assert summary["best"]["test_accuracy"] == pytest.approx(best)
    assert summary["faces"] == {"train": 160, "test": 64}
    state = checkpoint.read_checkpoint(finished / "last.pt")
    assert state["classes"][0] == "Surprise"
    assert "compactness.centers.value" in state["criterion"]


def test_training_lowers_the_loss(finished: Path) -> None:
    first, last = rows_of(finished)
    assert float(last["train_total"]) < float(first["train_total"])


def test_the_same_command_gives_the_same_weights_and_another_seed_does_not(
    finished: Path, tmp_path: Path
) -> None:
    run(tmp_path / "again")
    run(tmp_path / "other", "--seed", "1")
    wanted = checkpoint.read_checkpoint(finished / "last.pt")["model"]
    again = checkpoint.read_checkpoint(tmp_path / "again" / "last.pt")["model"]
    other = checkpoint.read_checkpoint(tmp_path / "other" / "last.pt")["model"]
    assert all(torch.equal(wanted[name], again[name]) for name in wanted)
    assert not torch.equal(wanted["1.classifier.weight"], other["1.classifier.weight"])


def test_the_baseline_trains_by_the_same_recipe(tmp_path: Path) -> None:
    summary = run(tmp_path / "linear", "--head", "linear", "--epochs", "1")
    assert summary["options"]["head"] == "linear"
    assert not (tmp_path / "linear" / "intra_weights.png").exists()


@pytest.mark.slow
def test_killed_in_mid_epoch_and_resumed_equals_never_killed(tmp_path: Path) -> None:
    # Eight batches an epoch, so that a kill shortly after an epoch's end falls inside the next.
    command = [sys.executable, str(SCRIPT), "--faces", "256", "--image-size", "32"]
    command += ["--batch-size", "32", "--epochs", "3", "--out"]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    with subprocess.Popen([*command, str(killed)], env=environment) as process:
        deadline = time.monotonic() + 200
        while not (killed / "last.pt").is_file():
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline, "no checkpoint came"
            time.sleep(0.02)
        time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (killed / "summary.json").exists()

    resume = [sys.executable, str(SCRIPT), "--resume", str(killed)]
    subprocess.run(resume, env=environment, check=True, timeout=280)
    subprocess.run([*command, str(whole)], env=environment, check=True, timeout=280)
    for part in ("model", "criterion", "adam"):
        got = checkpoint.read_checkpoint(killed / "last.pt")[part]
        want = checkpoint.read_checkpoint(whole / "last.pt")[part]
        assert_same(got, want, part)
    drop = ("seconds", "images_per_second", "waiting")
    for got_row, want_row in zip(rows_of(killed), rows_of(whole), strict=True):
        assert {k: v for k, v in got_row.items() if k not in drop} == {
            k: v for k, v in want_row.items() if k not in drop
        }


def assert_same(got: Any, want: Any, name: str) -> None:
    """Compare nested plain values and tensors bit for bit."""
    if isinstance(want, torch.Tensor):
        assert torch.equal(got, want), name
    elif isinstance(want, dict):
        assert got.keys() == want.keys(), name
        for key in want:
            assert_same(got[key], want[key], f"{name}.{key}")
    elif isinstance(want, list | tuple):
        assert len(got) == len(want), name
        for index, (a, b) in enumerate(zip(got, want, strict=True)):
            assert_same(a, b, f"{name}[{index}]")
    else:
        assert got == want, name


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_train_one_model(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(SCRIPT), *SMALL, "--epochs", "1"]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    subprocess.run(
        [*command, "--out", str(tmp_path / "two")], env=environment, check=True, timeout=280
    )
    summary = json.loads((tmp_path / "two" / "summary.json").read_text())
    # 64 test faces, each counted once: the accuracy is a multiple of 1 / 64.
    assert (summary["last"]["test_accuracy"] * 64 / 100) % 1 == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "ferplus"], "--dataset ferplus needs --data DIR"),
        (["--epochs", "0"], "--epochs must be at least 1"),
        (["--lr", "0"], "--lr must be above 0"),
        (["--limit", "8"], "--limit must leave at least one batch of 64"),
        (
            ["--resume", "runs/x", "--epochs", "3"],
            "--resume takes everything from the run's folder",
        ),
    ],
)
def test_rejects_what_no_run_can_be_made_of(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        fer_rafdb.main(arguments)
    assert message in capsys.readouterr().err


def test_rejects_a_folder_in_use(finished: Path) -> None:
    with pytest.raises(SystemExit, match="exists; go on with --resume"):
        run(finished)


def test_rejects_a_missing_database_before_making_a_folder(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(SystemExit, match="nowhere"):
        run(out, "--dataset", "rafdb", "--data", str(tmp_path / "nowhere"))
    assert not out.exists()


def test_rejects_resuming_where_nothing_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        fer_rafdb.main(["--resume", str(tmp_path)])
    assert "cannot go on with" in capsys.readouterr().err


def test_killed_in_the_first_epoch_begins_again(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "young"
    folder.mkdir()
    (folder / "config.json").write_bytes((finished / "config.json").read_bytes())
    fer_rafdb.main(["--resume", str(folder)])
    wanted = checkpoint.read_checkpoint(finished / "last.pt")["model"]
    got = checkpoint.read_checkpoint(folder / "last.pt")["model"]
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)
