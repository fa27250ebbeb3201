"""What tests of the examples share."""

from pathlib import Path
from typing import Any

import pytest

from fer.training.run import Run
from small_runs import use_small_backbone


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs take a second: on the small backbone, without pictures."""
    use_small_backbone(monkeypatch)
    monkeypatch.setattr("fer.evaluation.figures.draw_all", lambda *_: None)


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch, small: None) -> None:
    monkeypatch.setattr(Run, "train", lambda *_, **__: pytest.fail("training began"))


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of both heads on the same faces, as if they had been trained."""
    from report_pages import write_both_heads

    return write_both_heads(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def page(runs: Path) -> Any:
    from report_pages import page_of_both

    return page_of_both(runs)
