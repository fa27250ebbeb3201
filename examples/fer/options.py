"""The options of a run, and the presets that set those not given."""

import json
import math
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from fdrl_layers.layers import GateInit, Reduction, SelfFeature
from fdrl_layers.losses import CenterUpdate
from fer.training.augment import Augment

DATASETS = ("synthetic", "rafdb", "ferplus", "sfew", "ckplus", "mmi", "oulu", "folder")

CHOICES = {
    "targets": ("majority", "votes", "drawn"),
    "criterion": ("ce", "focal"),
    "class_weights": ("none", "balanced", "sqrt"),
    "sampler": ("shuffle", "balanced"),
}
"""Choices for the training targets, and remedies for rare classes and easy faces."""

PRESETS: dict[str, dict[str, Any]] = {
    # Section 4.2 of the paper. It starts from a ResNet-18 that is pretrained on faces.
    "paper": {
        "image_size": 224,
        "epochs": 40,
        "lr": 1e-4,
        "schedule": "steps",
        "reduction": "sum",
    },
    # For a backbone with random weights: small images, one cycle, and a mean instead of the sum in
    # equation 4, which most of the studies in benchmarks/studies/ use.
    "scratch": {
        "image_size": 64,
        "epochs": 10,
        "lr": 2e-3,
        "schedule": "onecycle",
        "reduction": "mean",
    },
    # The same for as many epochs as improve it, with regularization against overfitting. A narrow
    # network does not benefit within twelve epochs, but loses accuracy (study `longer`).
    "strong": {
        "image_size": 64,
        "epochs": 40,
        "lr": 2e-3,
        "schedule": "onecycle",
        "reduction": "mean",
        "augment": "strong",
        "label_smoothing": 0.1,
        "weight_decay": 0.05,
        "ema": 0.99,
        # Adds three points of accuracy on small faces (study `recipe`).
        "small_stem": True,
    },
}

LEGACY_VALUES: dict[str, Any] = {"gate_init": "linear"}
"""Values of options that older stored runs lack, if the default differs from what they did."""

# Small enough for a run to end within about four minutes on two CPU cores.
# In so few steps, drawn faces are learned faster with gates that start near one half.
SYNTHETIC: dict[str, Any] = {"image_size": 48, "epochs": 7, "gate_init": "linear"}


@dataclass(frozen=True)
class Options:
    """All options of a run; stored as `config.json` in its folder."""

    dataset: str = "synthetic"
    data: str | None = None
    labels: str = "label.csv"
    targets: str = "majority"
    classes: tuple[str, ...] = ()
    subject: str = r"[^_-]+"
    check_counts: bool = True
    faces: int = 2560
    limit: int | None = None
    folds: int = 10
    fold: int | None = None
    fold_seed: int = 0
    head: str = "fdrl"
    hidden: int = 0
    batch_norm: bool = False
    attach: str = "pooled"
    intra: bool = True
    inter: bool = True
    backbone: str = "resnet18"
    width: int = 64
    small_stem: bool = False
    last_stride: int = 2
    backbone_weights: str | None = None
    imagenet: bool = False
    freeze_backbone: bool = False
    preset: str = "scratch"
    image_size: int = 64
    epochs: int = 10
    batch_size: int = 64
    lr: float = 2e-3
    schedule: str = "onecycle"
    weight_decay: float = 0.0
    augment: Augment = "paper"
    reduction: Reduction = "mean"
    gate_init: GateInit = "uniform"
    num_latents: int = 9
    latent_dim: int = 128
    delta: float = 0.5
    self_feature: SelfFeature = "intra"
    lambda_compactness: float = 1e-4
    lambda_balance: float = 1.0
    balance_warmup: float = 0.0
    lambda_distribution: float = 1e-4
    lambda_peak: float = 0.0
    lambda_apart: float = 0.0
    normalize_latents: bool = False
    center_update: CenterUpdate | Literal["frozen"] = "alpha"
    label_smoothing: float = 0.0
    criterion: str = "ce"
    focal_gamma: float = 2.0
    class_weights: str = "none"
    logit_adjust: float = 0.0
    sampler: str = "shuffle"
    accumulate: int = 1
    clip: float | None = None
    ema: float | None = None
    sync_batch_norm: bool = False
    seed: int = 0
    device: str = "auto"
    amp: str = "auto"
    channels_last: bool = False
    compile: bool = False
    cache: str = "auto"
    graph: bool | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` for invalid options."""
        # JSON has lists only.
        object.__setattr__(self, "classes", tuple(self.classes))
        for name in ("faces", "image_size", "epochs", "batch_size", "accumulate", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1")
        if not -(2**63) <= self.seed < 2**64:
            raise ValueError(
                f"--seed must be from {-(2**63)} to {2**64 - 1}, which PyTorch's generators take, "
                f"got {self.seed}"
            )
        if not 0 <= self.fold_seed < 2**32:
            raise ValueError(
                f"--fold-seed must be from 0 to {2**32 - 1}, which scikit-learn takes, "
                f"got {self.fold_seed}"
            )
        if self.last_stride not in (1, 2):
            raise ValueError(f"--last-stride must be 1 or 2, got {self.last_stride}")
        if self.hidden < 0:
            raise ValueError(f"--hidden must be at least 0, got {self.hidden}")
        if not self.lr > 0:
            raise ValueError(f"--lr must be above 0, got {self.lr}")
        if not self.weight_decay >= 0:
            raise ValueError(f"--weight-decay must be at least 0, got {self.weight_decay}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"--label-smoothing must be at least 0 and below 1, got {self.label_smoothing}"
            )
        if not 0 <= self.balance_warmup <= 1:
            raise ValueError(
                f"--balance-warmup must be a share from 0 to 1, got {self.balance_warmup}"
            )
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"--clip must be above 0, got {self.clip}")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"--ema must be between 0 and 1, got {self.ema}")
        if self.accumulate > self.batch_size:
            raise ValueError(
                f"--accumulate must be at most the batch of {self.batch_size}, "
                f"got {self.accumulate}"
            )
        if self.limit is not None and self.limit < self.batch_size:
            raise ValueError(
                f"--limit must leave at least one batch of {self.batch_size}, got {self.limit}"
            )
        if self.imagenet and self.backbone_weights is not None:
            raise ValueError("--imagenet and --backbone-weights exclude each other")
        if self.imagenet and not self.is_paper_backbone:
            raise ValueError(
                "--imagenet needs the ResNet-18 that those weights are for, with --width 64, "
                "--no-small-stem and --last-stride 2"
            )
        if self.freeze_backbone and not self.imagenet and self.backbone_weights is None:
            raise ValueError("--freeze-backbone needs --backbone-weights or --imagenet")
        if self.channels_last and self.width < 8:
            # PyTorch's channels-last convolutions with so few channels write out of bounds.
            raise ValueError(f"--channels-last needs a --width of at least 8, got {self.width}")
        if self.attach != "pooled" and self.head != "fdrl":
            raise ValueError(f"--attach {self.attach} needs --head fdrl, got {self.head}")
        variation = {
            "--lambda-peak": self.lambda_peak,
            "--lambda-apart": self.lambda_apart,
            "--normalize-latents": self.normalize_latents,
        }
        for name, value in variation.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be at least 0 and finite, got {value}")
            if value and name == "--lambda-peak" and self.num_latents < 2:
                raise ValueError(
                    f"{name} needs --num-latents of at least 2, got {self.num_latents}"
                )
            if value and (self.head != "fdrl" or not self.intra):
                raise ValueError(f"{name} needs --head fdrl with Intra-RM")
        self._check_classification()
        self._check_data()

    @property
    def is_paper_backbone(self) -> bool:
        """Whether the backbone is the paper's ResNet-18, not a modified one."""
        built = (self.backbone, self.width, self.small_stem, self.last_stride)
        return built == ("resnet18", 64, False, 2)

    def _check_classification(self) -> None:
        for name in ("focal_gamma", "logit_adjust"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(
                    f"--{name.replace('_', '-')} must be at least 0 and finite, got {value}"
                )
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"--{name.replace('_', '-')} must be one of {', '.join(choices)}, "
                    f"got {getattr(self, name)}"
                )
        if self.criterion == "focal" and self.targets == "votes":
            raise ValueError("--criterion focal and --targets votes exclude each other")
        if self.criterion == "focal" and self.label_smoothing:
            raise ValueError("--criterion focal and --label-smoothing exclude each other")
        if self.criterion != "focal" and self.focal_gamma != Options.focal_gamma:
            raise ValueError("--focal-gamma needs --criterion focal")
        remedies = {
            f"--class-weights {self.class_weights}": self.class_weights != "none",
            f"--sampler {self.sampler}": self.sampler != "shuffle",
            "--logit-adjust": self.logit_adjust > 0,
        }
        # Two of them together would overcompensate for rare classes.
        if len(used := [name for name, is_used in remedies.items() if is_used]) > 1:
            raise ValueError(
                f"{' and '.join(used)} exclude each other: each makes up for rare classes"
            )

    def _check_data(self) -> None:
        if self.dataset not in DATASETS:
            raise ValueError(f"--dataset must be one of {', '.join(DATASETS)}, got {self.dataset}")
        if self.dataset != "synthetic" and self.data is None:
            raise ValueError(f"--dataset {self.dataset} needs --data DIR")
        if self.dataset != "ferplus" and self.targets != "majority":
            raise ValueError(
                f"--targets {self.targets} needs --dataset ferplus, which has votes, "
                f"got {self.dataset}"
            )
        if self.dataset == "folder" and not self.classes:
            raise ValueError("--dataset folder needs --classes, in the order of the labels")
        try:
            re.compile(self.subject)
        except re.error as error:
            raise ValueError(f"--subject is no regular expression: {error}") from error

    def without_weights(self) -> "Options":
        """Return the options for a model whose weights come from the run's own checkpoint."""
        return replace(self, imagenet=False, backbone_weights=None, freeze_backbone=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the options as plain values."""
        return asdict(self) | {"classes": list(self.classes)}


def load_options(folder: Path) -> Options:
    """Return the options of the run in `folder`."""
    return Options(**{**LEGACY_VALUES, **json.loads((folder / "config.json").read_text())})
