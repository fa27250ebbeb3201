"""A step that the gradient scaler skips is counted and shown; without a scaler it is an end."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fdrl_layers import FDRLHead, FDRLOutput
from fer.evaluation.summary import epoch_line
from fer.training.progress import Diverged
from small_runs import begin

pytestmark = pytest.mark.usefixtures("small")


class OverflowsIn:
    """Makes the logits of one training batch infinite, counted from 1."""

    def __init__(self, step: int) -> None:
        self.step, self.steps = step, 0

    def __call__(self, head: nn.Module, _: Any, output: FDRLOutput) -> FDRLOutput | None:
        self.steps += head.training
        if self.steps != self.step or not head.training:
            return None
        return dataclasses.replace(output, logits=output.logits * torch.inf)


def test_a_skipped_step_is_counted_and_shown(tmp_path: Path) -> None:
    run = begin(tmp_path / "run", epochs=2)
    run.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    assert isinstance(run.model[1], FDRLHead)
    run.model[1].register_forward_hook(OverflowsIn(2))
    before = run.scaler.get_scale()
    run.train(quiet=True)
    assert [row["skipped_steps"] for row in run.history] == [1, 0]
    assert all(0 < row["train_total"] < float("inf") for row in run.history)
    assert run.scaler.get_scale() == before / 2
    assert "1 steps skipped, as float16 overflowed" in epoch_line(run.history[0], 2)
    assert "skipped" not in epoch_line(run.history[1], 2)
    header, first, _ = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert dict(zip(header.split(","), first.split(","), strict=True))["skipped_steps"] == "1"
    for state in (run.model.state_dict(), run.criterion.state_dict()):
        assert all(each.isfinite().all() for each in state.values())


def test_without_a_scaler_it_is_an_end(tmp_path: Path) -> None:
    run = begin(tmp_path / "run", epochs=2)
    run.model[1].register_forward_hook(OverflowsIn(2))
    with pytest.raises(Diverged):
        run.train(quiet=True)
    assert not run.history
