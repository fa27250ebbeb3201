import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fdrl_layers
import fer_rafdb
from fer import checkpoint
from fer.stopping import SIGNALS, Stopped
from small_runs import (
    assert_same,
    batch_of,
    begin,
    draw_nothing,
    kept,
    make_run,
    options_of,
    use_small_backbone,
    without_clock,
)

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


@pytest.mark.usefixtures("_small")
def test_the_same_command_gives_the_same_weights_and_another_seed_does_not(tmp_path: Path) -> None:
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        fer_rafdb.main([*TINY, "--seed", str(seed), "--out", str(tmp_path / name)])
    first, again, other = (kept(tmp_path / name)["model"] for name in ("first", "again", "other"))
    assert_same(again, first)
    assert not torch.equal(other["1.classifier.weight"], first["1.classifier.weight"])


def test_the_baseline_trains_by_the_same_recipe(tmp_path: Path) -> None:
    summary = run(tmp_path / "linear", "--head", "linear", "--epochs", "1")
    assert summary["options"]["head"] == "linear"
    assert not (tmp_path / "linear" / "intra_weights.png").exists()


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


@pytest.mark.usefixtures("_small")
def test_killed_in_the_first_epoch_begins_again(tmp_path: Path) -> None:
    begin(tmp_path / "whole").train(quiet=True)
    folder = tmp_path / "young"
    folder.mkdir()
    (folder / "config.json").write_bytes((tmp_path / "whole" / "config.json").read_bytes())
    fer_rafdb.main(["--resume", str(folder)])
    assert_same(kept(folder), kept(tmp_path / "whole"))


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    use_small_backbone(monkeypatch)
    draw_nothing(monkeypatch)


def stop_in_step(monkeypatch: pytest.MonkeyPatch, number: int, step: int) -> None:
    """Send a signal to this process in the middle of a step, counted over all epochs."""
    taken, count = fer_rafdb.Run.step, iter(range(1, 1000))

    def step_and_signal(run: fer_rafdb.Run, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        if next(count) == step:
            os.kill(os.getpid(), number)
        return taken(run, images, labels)

    monkeypatch.setattr(fer_rafdb.Run, "step", step_and_signal)


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("step", [1, 5, 8, 10], ids="in step {}".format)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ema": 0.9, "clip": 0.5, "accumulate": 2, "weight_decay": 1e-3},
        {"center_update": "gradient", "schedule": "steps"},
        {"head": "linear", "channels_last": True, "ema": 0.5},
    ],
    ids=["plain", "ema, clip, accumulate", "gradient centers, steps", "baseline"],
)
def test_stopped_and_resumed_equals_never_stopped(
    changes: dict[str, Any], step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Five steps an epoch: the first, one in the middle, and the last of the first and second.
    begin(tmp_path / "whole", **changes).train(quiet=True)
    with monkeypatch.context() as patched:
        stop_in_step(patched, signal.SIGTERM, step)
        run = begin(tmp_path / "stopped", **changes)
        with pytest.raises(Stopped):
            run.train(quiet=True)
    state = checkpoint.read_checkpoint(tmp_path / "stopped" / "last.pt")
    assert (len(state["history"]), state["progress"]["steps"]) == divmod(step, 5)
    begin(tmp_path / "stopped", **changes).train(quiet=True)
    for name in ("last.pt", "best.pt"):
        assert_same(kept(tmp_path / "stopped", name), kept(tmp_path / "whole", name), name)
    assert_same(
        torch.load(tmp_path / "stopped" / "evaluation.pt", weights_only=True),
        torch.load(tmp_path / "whole" / "evaluation.pt", weights_only=True),
    )
    assert [without_clock(row) for row in rows_of(tmp_path / "stopped")] == [
        without_clock(row) for row in rows_of(tmp_path / "whole")
    ]


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_frozen_backbone_stays_as_it_is(accumulate: int, tmp_path: Path) -> None:
    begin(tmp_path / "first").train(quiet=True)
    start = str(tmp_path / "first" / "last.pt")
    changes = {"freeze_backbone": True, "backbone_weights": start, "accumulate": accumulate}
    begin(tmp_path / "second", seed=1, weight_decay=0.1, **changes).train(quiet=True)
    before, after = (kept(tmp_path / name)["model"] for name in ("first", "second"))
    # The statistics that it normalizes by too.
    assert any("running_mean" in name for name in before)
    for name, value in before.items():
        assert torch.equal(after[name], value) == name.startswith("0."), name


TINY = ["--faces", "40", "--image-size", "24", "--batch-size", "8", "--epochs", "2"]
TINY += ["--num-latents", "3", "--latent-dim", "8", "--device", "cpu"]


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_command_with_128_and_its_number(
    number: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stop_in_step(monkeypatch, number, 7)
    with pytest.raises(SystemExit) as ended:
        fer_rafdb.main([*TINY, "--out", str(tmp_path / "run")])
    assert ended.value.code == 128 + number
    assert f"stopped; to go on: --resume {tmp_path / 'run'}" in capsys.readouterr().out
    summary = fer_rafdb.main(["--resume", str(tmp_path / "run")])
    assert summary["last"]["epoch"] == 2


def numbers_in(content: Any) -> Iterator[Tensor]:
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, dict):
        for each in content.values():
            yield from numbers_in(each)


def poisoned(run: fer_rafdb.Run, where: str, losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put something that is no number into a loss, a weight, a center or a moment."""
    if where == "loss":
        return losses | {"total": losses["total"] / 0}
    if where == "weight":
        next(run.model.parameters()).data[0] = float("nan")
    elif where == "center":
        run.criterion.compactness.centers.value[0] = float("inf")
    else:
        next(iter(run.adam.state.values()))["exp_avg_sq"][0] = float("inf")
    return losses


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("where", ["loss", "weight", "center", "moment"])
def test_what_is_no_number_is_never_kept(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        stop_in_step(patched, signal.SIGTERM, 5)
        run = begin(folder)
        with pytest.raises(Stopped):
            run.train(quiet=True)
    good = (folder / "last.pt").read_bytes()
    taken = fer_rafdb.Run.step

    def last_step_goes_wrong(run: fer_rafdb.Run, *batch: Tensor) -> dict[str, Tensor]:
        losses = taken(run, *batch)
        return poisoned(run, where, losses) if run.progress.steps == 4 else losses

    monkeypatch.setattr(fer_rafdb.Run, "step", last_step_goes_wrong)
    what = "the loss stopped being a number" if where == "loss" else "weights, centers or moments"
    with pytest.raises(SystemExit, match=f"error: {what}.* in epoch 2.*is untouched"):
        fer_rafdb.main(["--resume", str(folder)])
    assert (folder / "last.pt").read_bytes() == good
    state = checkpoint.read_checkpoint(folder / "last.pt")
    assert all(each.isfinite().all() for each in numbers_in(state))


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("more", [[], ["--ema", "0.9"], ["--accumulate", "2"]], ids=str)
def test_a_rate_too_high_ends_with_what_happened(more: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"error: .* in epoch \d.*A lower --lr, --clip 1"):
        fer_rafdb.main([*TINY, "--lr", "1e30", *more, "--out", str(tmp_path / "run")])
    if (tmp_path / "run" / "last.pt").exists():
        state = checkpoint.read_checkpoint(tmp_path / "run" / "last.pt")
        assert all(each.isfinite().all() for each in numbers_in(state))


@pytest.mark.usefixtures("_small")
def test_clipping_bounds_the_gradient() -> None:
    run = make_run(clip=0.01)
    run.step(*batch_of(run))
    norms = [each.grad.norm() for each in run.parameters if each.grad is not None]
    assert float(torch.stack(norms).norm()) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.usefixtures("_small")
def test_averaged_weights_are_evaluated_and_follow_by_their_decay() -> None:
    run = make_run(ema=0.75)
    assert run.ema is not None
    name = "1.classifier.weight"
    want = None
    for _ in range(3):
        run.step(*batch_of(run))
        now = run.model.state_dict()[name].clone()
        want = now if want is None else 0.75 * want + 0.25 * now
    torch.testing.assert_close(run.ema.module.state_dict()[name], want)
    found = run.evaluate("test").probabilities
    run.ema.module.load_state_dict(run.model.state_dict())
    assert not np.array_equal(run.evaluate("test").probabilities, found)


def refuses(match: str, *arguments: str) -> None:
    with pytest.raises(SystemExit, match=match):
        fer_rafdb.main(list(arguments))


@pytest.fixture
def _no_training(monkeypatch: pytest.MonkeyPatch, _small: None) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("training began")

    monkeypatch.setattr(fer_rafdb.Run, "train", fail)


@pytest.mark.usefixtures("_no_training")
def test_two_runs_never_write_into_one_folder(tmp_path: Path) -> None:
    checkpoint.write_json(tmp_path / "config.json", options_of().plain())
    with checkpoint.claimed(tmp_path):
        refuses("another process writes to", "--resume", str(tmp_path))


@pytest.mark.usefixtures("_no_training")
def test_a_full_disk_is_told_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    refuses("error: .* has room for 1 MiB", *TINY, "--out", str(tmp_path / "run"))


@pytest.mark.usefixtures("_no_training")
def test_a_folder_that_cannot_be_written_to_is_told_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refuses("error: .*file", *TINY, "--out", str(tmp_path / "file" / "run"))


@pytest.mark.usefixtures("_no_training")
@pytest.mark.parametrize(
    ("more", "match"),
    [
        (["--backbone-weights", "nowhere.pt"], "nowhere.pt"),
        (["--amp", "fp16"], "--amp fp16 needs a GPU"),
        (["--num-latents", "0"], "num_latents"),
        (["--faces", "4"], "do not fill a batch"),
        (["--fold", "1"], "it has no folds"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_is_wrong_shows_before_a_folder_is_made(
    more: list[str], match: str, tmp_path: Path
) -> None:
    refuses(f"error: .*{match}", *TINY, *more, "--out", str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("_small")
def test_a_run_does_not_go_on_with_other_faces(tmp_path: Path) -> None:
    run = begin(tmp_path / "run", epochs=1)
    run.train(quiet=True)
    options = run.options.plain() | {"faces": 48}
    checkpoint.write_json(tmp_path / "run" / "config.json", options)
    refuses("was trained on .*'train': 40.*'train': 48", "--resume", str(tmp_path / "run"))


@pytest.mark.usefixtures("_small")
def test_a_checkpoint_says_what_it_is(tmp_path: Path) -> None:
    begin(tmp_path / "run", epochs=1).train(quiet=True)
    for name in ("last.pt", "best.pt"):
        state = torch.load(tmp_path / "run" / name, weights_only=True)
        assert state["version"] == fdrl_layers.__version__
        assert state["classes"][0] == "Surprise"
        assert state["options"]["num_latents"] == 3
        assert state["faces"] == {"train": 40, "test": 16}
