"""What a run can be told on the command line, and the two recipes that fill in the rest."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from fdrl_layers.layers import Reduction
from fdrl_layers.losses import CenterUpdate

PRESETS: dict[str, dict[str, Any]] = {
    # Section 4.2 of the paper, to the letter. It starts from a ResNet-18 that knows faces.
    "paper": {
        "image_size": 224,
        "epochs": 40,
        "lr": 1e-4,
        "schedule": "steps",
        "reduction": "sum",
    },
    # For a backbone that knows nothing yet: small images, one cycle, and a mean for the sum in
    # equation 4, from which such a backbone hardly learns.
    "scratch": {
        "image_size": 64,
        "epochs": 10,
        "lr": 2e-3,
        "schedule": "onecycle",
        "reduction": "mean",
    },
}

# Small enough for the main job to end within three minutes on two CPU cores.
SYNTHETIC: dict[str, Any] = {"image_size": 48, "epochs": 7}


@dataclass(frozen=True)
class Options:
    """Everything that decides a run; stored as `config.json` in its folder."""

    dataset: str = "synthetic"
    data: str | None = None
    labels: str = "label.csv"
    check_counts: bool = True
    faces: int = 2560
    limit: int | None = None
    head: str = "fdrl"
    preset: str = "scratch"
    image_size: int = 64
    epochs: int = 10
    batch_size: int = 64
    lr: float = 2e-3
    schedule: str = "onecycle"
    reduction: Reduction = "mean"
    num_latents: int = 9
    latent_dim: int = 128
    delta: float = 0.5
    lambda_compactness: float = 1e-4
    lambda_balance: float = 1.0
    lambda_distribution: float = 1e-4
    center_update: CenterUpdate = "alpha"
    seed: int = 0
    device: str = "auto"
    amp: str = "auto"

    def __post_init__(self) -> None:
        """Refuse what no run can be made of."""
        for name in ("faces", "image_size", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1")
        if not self.lr > 0:
            raise ValueError(f"--lr must be above 0, got {self.lr}")
        if self.limit is not None and self.limit < self.batch_size:
            raise ValueError(
                f"--limit must leave at least one batch of {self.batch_size}, got {self.limit}"
            )
        if self.dataset != "synthetic" and self.data is None:
            raise ValueError(f"--dataset {self.dataset} needs --data DIR")

    def plain(self) -> dict[str, Any]:
        """Return the options as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Command:
    """A command line: the options of a run, where it goes, and whether it goes on."""

    options: Options
    out: Path | None
    resume: Path | None


def stored(folder: Path) -> Options:
    """Return the options of the run in `folder`."""
    return Options(**json.loads((folder / "config.json").read_text()))


def _parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    data = parser.add_argument_group("data")
    data.add_argument("--dataset", choices=("synthetic", "rafdb", "ferplus"))
    data.add_argument("--data", metavar="DIR", help="where the database lies")
    data.add_argument("--labels", choices=("label.csv", "fer2013new.csv"), help="FER+ votes")
    data.add_argument(
        "--no-check-counts", dest="check_counts", action="store_false",
        help="go on if a split has not the published number of images",
    )  # fmt: skip
    data.add_argument("--faces", type=int, metavar="N", help="synthetic training faces")
    data.add_argument("--limit", type=int, metavar="N", help="train on N faces only")
    data.add_argument("--image-size", type=int, metavar="S", help="of the crop, in pixels")
    model = parser.add_argument_group("model")
    model.add_argument("--head", choices=("fdrl", "linear"), help="linear: the paper's baseline")
    model.add_argument(
        "--reduction", choices=("sum", "mean", "share"),
        help="how gates become Intra-W: sum is equation 4 as printed",
    )  # fmt: skip
    model.add_argument("--num-latents", type=int, metavar="M")
    model.add_argument("--latent-dim", type=int, metavar="D")
    model.add_argument("--delta", type=float)
    loss = parser.add_argument_group("loss")
    for name in ("compactness", "balance", "distribution"):
        loss.add_argument(f"--lambda-{name}", type=float, metavar="W")
    loss.add_argument("--center-update", choices=("alpha", "ema", "gradient"))
    recipe = parser.add_argument_group("recipe")
    recipe.add_argument(
        "--preset", choices=tuple(PRESETS),
        help="paper: section 4.2 to the letter, made for a face-pretrained backbone; "
        "scratch (default): a recipe that learns from nothing",
    )  # fmt: skip
    recipe.add_argument("--epochs", type=int)
    recipe.add_argument("--batch-size", type=int, help="over all processes together")
    recipe.add_argument("--lr", type=float)
    recipe.add_argument("--schedule", choices=("steps", "onecycle"))
    recipe.add_argument("--seed", type=int)
    run = parser.add_argument_group("run")
    run.add_argument("--device", help="auto (default), cpu, cuda, ...")
    run.add_argument("--amp", choices=("auto", "off"), help="auto: bfloat16 where a GPU has it")
    run.add_argument("--out", type=Path, metavar="DIR", help="a new folder for the run")
    run.add_argument("--resume", type=Path, metavar="DIR", help="go on with the run in DIR")
    return parser


def parse(description: str, arguments: Sequence[str] | None = None) -> Command:
    """Read a command line; a preset fills in what is not said."""
    parser = _parser(description)
    said = vars(parser.parse_args(arguments))
    out, resume = said.pop("out", None), said.pop("resume", None)
    if resume is not None and (said or out is not None):
        parser.error("--resume takes everything from the run's folder; say nothing else")
    if resume is not None:
        try:
            return Command(stored(resume), None, resume)
        except (OSError, ValueError, TypeError) as error:
            parser.error(f"cannot go on with {resume}: {error}")
    known = {field.name: field.default for field in fields(Options)}
    preset = dict(PRESETS[said.get("preset", "scratch")])
    if "preset" not in said and said.get("dataset", "synthetic") == "synthetic":
        preset |= SYNTHETIC
    try:
        return Command(Options(**{**known, **preset, **said}), out, resume)
    except ValueError as error:
        parser.error(str(error))
