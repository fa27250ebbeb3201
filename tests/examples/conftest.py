"""What tests of the examples share."""

import pytest

from fer.training.run import Run
from small_runs import draw_nothing, use_small_backbone


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs take a second: on the small backbone, without pictures."""
    use_small_backbone(monkeypatch)
    draw_nothing(monkeypatch)


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch, small: None) -> None:
    """Fail where training begins."""

    def fail(*_: object) -> None:
        raise AssertionError("training began")

    monkeypatch.setattr(Run, "train", fail)
