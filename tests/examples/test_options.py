import json
from pathlib import Path
from typing import Any

import pytest

from fer.options import load_options
from small_runs import options_of

NAN = float("nan")
VOTES = {"dataset": "ferplus", "data": "x", "targets": "votes"}


def test_options_go_through_json_and_cannot_change(tmp_path: Path) -> None:
    options = options_of(classes=("a", "b"), clip=1.0)
    plain = options.to_dict()
    (tmp_path / "config.json").write_text(json.dumps(plain))
    assert load_options(tmp_path) == options
    with pytest.raises(AttributeError):
        options.lr = 1  # type: ignore[misc]
    # A run from before gates had a choice started them as PyTorch does.
    assert plain.pop("gate_init") == "uniform"
    (tmp_path / "config.json").write_text(json.dumps(plain))
    assert load_options(tmp_path).gate_init == "linear"


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"seed": 2**64}, f"--seed must be from {-(2**63)} to {2**64 - 1}, .* got {2**64}"),
        ({"seed": -(2**63) - 1}, "--seed must be from"),
        *(
            ({name: 0}, f"--{name.replace('_', '-')} must be at least 1")
            for name in ("epochs", "batch_size", "image_size", "faces", "accumulate", "width")
        ),
        ({"accumulate": 9}, "--accumulate must be at most the batch of 8, got 9"),
        *(({"lr": bad}, "--lr must be above 0") for bad in (0.0, NAN)),
        *(({"weight_decay": bad}, "--weight-decay must be at least 0") for bad in (-1.0, NAN)),
        ({"clip": 0.0}, "--clip must be above 0"),
        *(({"ema": bad}, "--ema must be between 0 and 1") for bad in (1.0, 0.0)),
        ({"limit": 7}, "--limit must leave at least one batch of 8, got 7"),
        ({"imagenet": True, "backbone_weights": "x"}, "exclude each other"),
        *(
            ({"imagenet": True, **other}, "needs the ResNet-18")
            for other in ({"width": 32}, {"small_stem": True}, {"last_stride": 1})
        ),
        ({"balance_warmup": -0.1}, "--balance-warmup must be a share from 0 to 1, got -0.1"),
        ({"balance_warmup": 2}, "--balance-warmup must be a share from 0 to 1, got 2"),
        ({"last_stride": 4}, "--last-stride must be 1 or 2, got 4"),
        ({"attach": "places", "head": "linear"}, "--attach places needs --head fdrl, got linear"),
        ({"freeze_backbone": True}, "--freeze-backbone needs --backbone-weights or --imagenet"),
        ({"channels_last": True, "width": 4}, "--channels-last needs a --width .* 8, got 4"),
        ({"hidden": -1}, "--hidden must be at least 0, got -1"),
        ({"focal_gamma": -1.0, "criterion": "focal"}, "--focal-gamma must be at least 0"),
        ({"focal_gamma": 1.0}, "--focal-gamma needs --criterion focal"),
        ({"logit_adjust": NAN}, "--logit-adjust must be at least 0 and finite, got nan"),
        ({"criterion": "x"}, "--criterion must be one of ce, focal, got x"),
        ({"class_weights": "x"}, "--class-weights must be one of none, balanced, sqrt, got x"),
        ({"sampler": "x"}, "--sampler must be one of shuffle, balanced, got x"),
        ({"lambda_peak": -1.0}, "--lambda-peak must be at least 0 and finite, got -1.0"),
        ({"lambda_apart": float("inf")}, "--lambda-apart must be at least 0 and finite, got inf"),
        ({"lambda_peak": 1.0, "num_latents": 1}, "--lambda-peak needs --num-latents of at least 2"),
        ({"lambda_apart": 1.0, "head": "linear"}, "--lambda-apart needs --head fdrl with Intra-RM"),
        ({"normalize_latents": True, "intra": False}, "--normalize-latents needs --head fdrl with"),
        ({"targets": "x"}, "--targets must be one of majority, votes, drawn, got x"),
        ({"targets": "votes"}, "--targets votes needs --dataset ferplus, .* got synthetic"),
        ({"fold_seed": -1}, "--fold-seed must be from 0 to 4294967295, .* got -1"),
        ({"fold_seed": 2**32}, "--fold-seed must be from 0 to 4294967295, .* got 4294967296"),
        ({"dataset": "lfw"}, "--dataset must be one of .*, got lfw"),
        ({"dataset": "rafdb"}, "--dataset rafdb needs --data DIR"),
        ({"dataset": "folder", "data": "x"}, "--dataset folder needs --classes"),
        ({"subject": "("}, "--subject is no regular expression"),
    ],
)
def test_rejects_what_no_run_can_be_made_of(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        options_of(**changes)


@pytest.mark.parametrize(
    ("changes", "both"),
    [
        ({"criterion": "focal", "label_smoothing": 0.1}, "focal and --label-smoothing"),
        ({"class_weights": "sqrt", "logit_adjust": 1.0}, "-weights sqrt and --logit-adjust"),
        ({"class_weights": "balanced", "sampler": "balanced"}, "s balanced and --sampler balanced"),
        ({"sampler": "balanced", "logit_adjust": 1.0}, "--sampler balanced and --logit-adjust"),
        ({**VOTES, "criterion": "focal"}, "--criterion focal and --targets votes"),
    ],
)
def test_rejects_what_excludes_each_other(changes: dict[str, Any], both: str) -> None:
    with pytest.raises(ValueError, match=f"{both} exclude each other"):
        options_of(**changes)


def test_a_frozen_run_is_read_back_without_its_start() -> None:
    options = options_of(backbone_weights="x", freeze_backbone=True)
    assert options.without_weights() == options_of()
