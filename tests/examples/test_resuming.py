"""A run that is stopped, or goes wrong, keeps what it had, and goes on from there."""

import os
import signal
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import fdrl_layers
import fer_rafdb
from fdrl_layers import FDRLOutput
from fer.evaluation.summary import format_epoch
from fer.model import checkpoint
from fer.training.progress import Diverged
from fer.training.run import Run
from fer.training.stopping import SIGNALS, Stopped
from small_runs import (
    COMMAND,
    assert_same,
    read_metrics,
    read_outputs,
    refuses,
    same_runs,
    start_run,
    train_run,
)

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("small")


def test_killed_in_the_first_epoch_begins_again(tmp_path: Path, capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        fer_rafdb.main(["--resume", str(tmp_path)])
    assert "cannot go on with" in capsys.readouterr().err
    whole = train_run(tmp_path / "whole")
    checkpoint.write_json(tmp_path / "config.json", whole.options.to_dict())
    fer_rafdb.main(["--resume", str(tmp_path)])
    same_runs(tmp_path / "whole", tmp_path)


def stop_in_step(monkeypatch: pytest.MonkeyPatch, number: int, step: int) -> None:
    """Send a signal to this process in the middle of a step, counted over all epochs."""
    taken, steps = Run.step, count(1)

    def step_and_signal(run: Run, *batch: Tensor) -> dict[str, Tensor]:
        if next(steps) == step:
            os.kill(os.getpid(), number)
        return taken(run, *batch)

    monkeypatch.setattr(Run, "step", step_and_signal)


def stopped_in_step(step: int, folder: Path, **changes: Any) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patched:
        stop_in_step(patched, signal.SIGTERM, step)
        run = start_run(folder, **changes)
        with pytest.raises(Stopped):
            run.train(quiet=True)
    return checkpoint.read_checkpoint(folder / "last.pt")


@pytest.mark.parametrize("step", [1, 5, 8, 10], ids="in step {}".format)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ema": 0.9, "clip": 0.5, "accumulate": 2, "weight_decay": 1e-3},
        {"center_update": "gradient", "schedule": "steps", "balance_warmup": 0.75},
        {"head": "linear", "channels_last": True, "ema": 0.5},
    ],
    ids=str,
)
def test_stopped_and_resumed_equals_never_stopped(
    changes: dict[str, Any], step: int, tmp_path: Path
) -> None:
    # Five steps an epoch: the first, one in the middle, and the last of the first and second.
    train_run(tmp_path / "whole", **changes)
    state = stopped_in_step(step, tmp_path / "stopped", **changes)
    assert (len(state["history"]), state["progress"]["steps"]) == divmod(step, 5)
    train_run(tmp_path / "stopped", **changes)
    assert_same(read_outputs(tmp_path / "stopped"), read_outputs(tmp_path / "whole"))


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_command_with_128_and_its_number(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    stop_in_step(monkeypatch, number, 7)
    with pytest.raises(SystemExit) as ended:
        fer_rafdb.main([*COMMAND, "--out", str(tmp_path / "run")])
    assert ended.value.code == 128 + number
    assert f"stopped; to go on: --resume {tmp_path / 'run'}" in capsys.readouterr().out
    summary = fer_rafdb.main(["--resume", str(tmp_path / "run")])
    assert summary["last"]["epoch"] == 2


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
    stopped_in_step(5, folder)
    good = (folder / "last.pt").read_bytes()
    taken = Run.step

    def last_step_goes_wrong(run: Run, *batch: Tensor) -> dict[str, Tensor]:
        losses = taken(run, *batch)
        return poisoned(run, where, losses) if run.progress.steps == 4 else losses

    monkeypatch.setattr(Run, "step", last_step_goes_wrong)
    what = "the loss stopped being a number" if where == "loss" else "weights, centers or moments"
    match = f"error: {what}.* in epoch 2.*is untouched. A lower --lr, --clip 1"
    refuses(match, "--resume", str(folder))
    assert (folder / "last.pt").read_bytes() == good
    leaves = tree_leaves(checkpoint.read_checkpoint(folder / "last.pt"))
    assert all(each.isfinite().all() for each in leaves if isinstance(each, Tensor))


def overflowing(folder: Path) -> Run:
    """Begin a run in whose second training batch the logits become infinite."""
    run, steps = start_run(folder, epochs=2), count(1)

    def overflow(head: nn.Module, _: object, output: FDRLOutput) -> FDRLOutput | None:
        if not head.training or next(steps) != 2:
            return None
        return replace(output, logits=output.logits * torch.inf)

    run.model[1].register_forward_hook(overflow)
    return run


def test_a_step_that_the_scaler_skips_is_counted_and_shown(tmp_path: Path) -> None:
    run = overflowing(tmp_path / "run")
    run.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    before = run.scaler.get_scale()
    run.train(quiet=True)
    assert [row["skipped_steps"] for row in run.history] == [1, 0]
    assert all(0 < row["train_total"] < float("inf") for row in run.history)
    assert run.scaler.get_scale() == before / 2
    assert "1 steps skipped, as float16 overflowed" in format_epoch(run.history[0], 2)
    assert "skipped" not in format_epoch(run.history[1], 2)
    assert read_metrics(tmp_path / "run")[0]["skipped_steps"] == "1"
    for state in (run.model.state_dict(), run.criterion.state_dict()):
        assert all(each.isfinite().all() for each in state.values())


def test_without_a_scaler_it_is_an_end(tmp_path: Path) -> None:
    run = overflowing(tmp_path / "run")
    with pytest.raises(Diverged):
        run.train(quiet=True)
    assert not run.history


def test_a_checkpoint_says_what_it_is_and_is_of_one_process_and_certain_faces(
    tmp_path: Path,
) -> None:
    run = train_run(tmp_path / "run", epochs=1)
    for name in ("last.pt", "best.pt"):
        state = torch.load(tmp_path / "run" / name, weights_only=True)
        assert state["version"] == fdrl_layers.__version__
        assert state["classes"][0] == "Surprise"
        assert state["options"]["num_latents"] == 3
        assert state["faces"] == {"train": 40, "test": 16}
    with checkpoint.lock_folder(tmp_path / "run"):
        refuses("another process writes to", "--resume", str(tmp_path / "run"))
    checkpoint.write_json(tmp_path / "run" / "config.json", run.options.to_dict() | {"faces": 48})
    refuses("was trained on .*'train': 40.*'train': 48", "--resume", str(tmp_path / "run"))
