"""What tests of the examples share."""

import pytest

from small_runs import draw_nothing, use_small_backbone


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs take a second: on the small backbone, without pictures."""
    use_small_backbone(monkeypatch)
    draw_nothing(monkeypatch)
