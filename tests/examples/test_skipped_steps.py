"""A step that the gradient scaler skips is counted and shown; without a scaler it is an end."""

from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch
from torch import nn

from fdrl_layers import FDRLOutput
from fer.evaluation.summary import epoch_line
from fer.training.progress import Diverged
from fer.training.run import Run
from small_runs import begin, rows_of

pytestmark = pytest.mark.usefixtures("small")


def overflowing(folder: Path) -> Run:
    """Begin a run in whose second training batch the logits become infinite."""
    run, steps = begin(folder, epochs=2), count(1)

    def overflow(head: nn.Module, _: object, output: FDRLOutput) -> FDRLOutput | None:
        if not head.training or next(steps) != 2:
            return None
        return replace(output, logits=output.logits * torch.inf)

    run.model[1].register_forward_hook(overflow)
    return run


def test_a_skipped_step_is_counted_and_shown(tmp_path: Path) -> None:
    run = overflowing(tmp_path / "run")
    run.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    before = run.scaler.get_scale()
    run.train(quiet=True)
    assert [row["skipped_steps"] for row in run.history] == [1, 0]
    assert all(0 < row["train_total"] < float("inf") for row in run.history)
    assert run.scaler.get_scale() == before / 2
    assert "1 steps skipped, as float16 overflowed" in epoch_line(run.history[0], 2)
    assert "skipped" not in epoch_line(run.history[1], 2)
    assert rows_of(tmp_path / "run")[0]["skipped_steps"] == "1"
    for state in (run.model.state_dict(), run.criterion.state_dict()):
        assert all(each.isfinite().all() for each in state.values())


def test_without_a_scaler_it_is_an_end(tmp_path: Path) -> None:
    run = overflowing(tmp_path / "run")
    with pytest.raises(Diverged):
        run.train(quiet=True)
    assert not run.history
