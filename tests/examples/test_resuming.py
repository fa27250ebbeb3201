"""A run that is stopped, or goes wrong, keeps what it had, and goes on from there."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import fdrl_layers
import fer_rafdb
from fer.model import checkpoint
from fer.training.run import Run
from fer.training.stopping import SIGNALS, Stopped
from small_runs import (
    COMMAND,
    assert_same,
    begin,
    kept,
    options_of,
    refuses,
    rows_of,
    without_clock,
)

pytestmark = pytest.mark.usefixtures("small")


def test_rejects_resuming_where_nothing_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        fer_rafdb.main(["--resume", str(tmp_path)])
    assert "cannot go on with" in capsys.readouterr().err


def test_killed_in_the_first_epoch_begins_again(tmp_path: Path) -> None:
    begin(tmp_path / "whole").train(quiet=True)
    folder = tmp_path / "young"
    folder.mkdir()
    (folder / "config.json").write_bytes((tmp_path / "whole" / "config.json").read_bytes())
    fer_rafdb.main(["--resume", str(folder)])
    assert_same(kept(folder), kept(tmp_path / "whole"))


def stop_in_step(monkeypatch: pytest.MonkeyPatch, number: int, step: int) -> None:
    """Send a signal to this process in the middle of a step, counted over all epochs."""
    taken, count = Run.step, iter(range(1, 1000))

    def step_and_signal(run: Run, *batch: Tensor) -> dict[str, Tensor]:
        if next(count) == step:
            os.kill(os.getpid(), number)
        return taken(run, *batch)

    monkeypatch.setattr(Run, "step", step_and_signal)


@pytest.mark.parametrize("step", [1, 5, 8, 10], ids="in step {}".format)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ema": 0.9, "clip": 0.5, "accumulate": 2, "weight_decay": 1e-3},
        {"center_update": "gradient", "schedule": "steps", "balance_warmup": 0.75},
        {"head": "linear", "channels_last": True, "ema": 0.5},
    ],
    ids=["plain", "ema, clip, accumulate", "gradient centers, steps, warm-up", "baseline"],
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


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_command_with_128_and_its_number(
    number: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stop_in_step(monkeypatch, number, 7)
    with pytest.raises(SystemExit) as ended:
        fer_rafdb.main([*COMMAND, "--out", str(tmp_path / "run")])
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


def poisoned(run: Run, where: str, losses: dict[str, Tensor]) -> dict[str, Tensor]:
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
    taken = Run.step

    def last_step_goes_wrong(run: Run, *batch: Tensor) -> dict[str, Tensor]:
        losses = taken(run, *batch)
        return poisoned(run, where, losses) if run.progress.steps == 4 else losses

    monkeypatch.setattr(Run, "step", last_step_goes_wrong)
    what = "the loss stopped being a number" if where == "loss" else "weights, centers or moments"
    with pytest.raises(SystemExit, match=f"error: {what}.* in epoch 2.*is untouched"):
        fer_rafdb.main(["--resume", str(folder)])
    assert (folder / "last.pt").read_bytes() == good
    state = checkpoint.read_checkpoint(folder / "last.pt")
    assert all(each.isfinite().all() for each in numbers_in(state))


@pytest.mark.parametrize("more", [[], ["--ema", "0.9"], ["--accumulate", "2"]], ids=str)
def test_a_rate_too_high_ends_with_what_happened(more: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"error: .* in epoch \d.*A lower --lr, --clip 1"):
        fer_rafdb.main([*COMMAND, "--lr", "1e30", *more, "--out", str(tmp_path / "run")])
    if (tmp_path / "run" / "last.pt").exists():
        state = checkpoint.read_checkpoint(tmp_path / "run" / "last.pt")
        assert all(each.isfinite().all() for each in numbers_in(state))


@pytest.mark.usefixtures("no_training")
def test_two_runs_never_write_into_one_folder(tmp_path: Path) -> None:
    checkpoint.write_json(tmp_path / "config.json", options_of().plain())
    with checkpoint.claim_folder(tmp_path):
        refuses("another process writes to", "--resume", str(tmp_path))


def test_a_run_does_not_go_on_with_other_faces(tmp_path: Path) -> None:
    run = begin(tmp_path / "run", epochs=1)
    run.train(quiet=True)
    options = run.options.plain() | {"faces": 48}
    checkpoint.write_json(tmp_path / "run" / "config.json", options)
    refuses("was trained on .*'train': 40.*'train': 48", "--resume", str(tmp_path / "run"))


def test_a_checkpoint_says_what_it_is(tmp_path: Path) -> None:
    begin(tmp_path / "run", epochs=1).train(quiet=True)
    for name in ("last.pt", "best.pt"):
        state = torch.load(tmp_path / "run" / name, weights_only=True)
        assert state["version"] == fdrl_layers.__version__
        assert state["classes"][0] == "Surprise"
        assert state["options"]["num_latents"] == 3
        assert state["faces"] == {"train": 40, "test": 16}
