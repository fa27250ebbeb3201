"""What a report says was run."""

from pathlib import Path
from typing import Any

import pytest

from fer.report import facts
from report_runs import reported

ALIVE = {"lambda_peak": 0.5, "lambda_apart": 2.0, "normalize_latents": True}
FROZEN = {"backbone_weights": "x/faces.pt", "freeze_backbone": True}


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("Backbone", {}, "ResNet-18 from random weights"),
        ("Backbone", {"backbone": "resnet10", "width": 16}, "ResNet-10 of 16 channels from"),
        ("Backbone", {"small_stem": True}, "ResNet-18 with a small stem from"),
        ("Backbone", {"last_stride": 1}, "ResNet-18 with a last stride of 1 from"),
        ("Backbone", FROZEN, "ResNet-18 from faces.pt, frozen"),
        ("Head", {"head": "linear"}, "linear: the paper's baseline"),
        ("Head", {"head": "linear", "batch_norm": True}, "batch normalization before the last"),
        ("Head", {"head": "plain"}, "plain: two layers, as many parameters as FDRL and 128"),
        ("Head", {"head": "plain", "hidden": 64}, "plain: two layers, 64 and 128"),
        ("Head", {"intra": False}, "without Intra-RM"),
        ("Head", {"self_feature": "message"}, "messages in equation 11"),
        ("Head", {"attach": "attention"}, "on maps by attention"),
        ("Head", ALIVE, "gates of normalized latents"),
        ("Losses", ALIVE, "λ peak 0.5, λ apart 2; centers"),
    ],
    ids=str,
)
def test_says_what_was_run(name: str, changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    assert words in dict(facts.facts(reported(tmp_path, **changes)))[name]


@pytest.mark.parametrize(
    ("changes", "printed"),
    [
        ({}, 89.47),
        ({"head": "linear"}, 86.93),
        ({"head": "plain"}, None),
        ({"intra": False}, None),
        ({"self_feature": "message"}, None),
        ({"attach": "places"}, None),
        ({"batch_norm": True}, None),
        ({"dataset": "ferplus"}, None),
    ],
    ids=str,
)
def test_what_the_paper_prints_is_that_of_its_own_heads(
    changes: dict[str, Any], printed: float | None, tmp_path: Path
) -> None:
    options = {"dataset": "rafdb", "data": "x", **changes}
    assert facts.printed(reported(tmp_path, **options)) == printed
