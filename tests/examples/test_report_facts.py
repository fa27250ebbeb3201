"""What a report says was run."""

from pathlib import Path
from typing import Any

import pytest

from fer.report import facts
from fer.report.folder import Reported, read_folder
from report_runs import plain_faces, write_run


def reported(folder: Path, **changes: Any) -> Reported:
    return read_folder(write_run(folder / "run", plain_faces(21), **changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "ResNet-18"),
        ({"backbone": "resnet10", "width": 16}, "ResNet-10 of 16 channels"),
        ({"small_stem": True}, "ResNet-18 with a small stem"),
        ({"last_stride": 1}, "ResNet-18 with a last stride of 1"),
    ],
    ids=str,
)
def test_it_says_which_backbone(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    assert facts.backbone(reported(tmp_path, **changes)) == words


def test_it_says_that_a_backbone_was_frozen(tmp_path: Path) -> None:
    run = reported(tmp_path, backbone_weights="x/faces.pt", freeze_backbone=True)
    assert dict(facts.facts(run))["Backbone"] == "ResNet-18 from faces.pt, frozen"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"head": "linear"}, "linear: the paper's baseline"),
        ({"head": "linear", "batch_norm": True}, "batch normalization before the last layer"),
        ({"head": "plain"}, "plain: two layers, as many parameters as FDRL and 128"),
        ({"head": "plain", "hidden": 64}, "plain: two layers, 64 and 128"),
        ({"intra": False}, "without Intra-RM"),
        ({"self_feature": "message"}, "messages in equation 11"),
        ({"attach": "attention"}, "on maps by attention"),
    ],
    ids=str,
)
def test_it_says_which_head(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    assert words in facts.head(reported(tmp_path, **changes))


def test_it_says_all_that_a_loss_is_made_of(tmp_path: Path) -> None:
    living = reported(tmp_path, lambda_peak=0.5, lambda_apart=2.0, normalize_latents=True)
    assert "λ peak 0.5, λ apart 2; centers" in facts.losses(living)
    assert "gates of normalized latents" in facts.head(living)


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
