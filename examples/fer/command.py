"""The command line that the training scripts share."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from fer.options import CHOICES, DATASETS, PRESETS, SYNTHETIC, Options, load_options


@dataclass(frozen=True)
class Command:
    """A parsed command line: the options of a run, its folder, and the folder to resume from."""

    options: Options
    out: Path | None
    resume: Path | None


def make_parser(description: str, datasets: Sequence[str] = DATASETS) -> argparse.ArgumentParser:
    """Return a parser for the options of a run; options that are not given are left out."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    _add_data(parser, datasets)
    _add_model(parser)
    _add_recipe(parser)
    run = parser.add_argument_group("run")
    run.add_argument("--device", help="auto (default), cpu, cuda, ...")
    run.add_argument(
        "--amp", choices=("auto", "bf16", "fp16", "off"),
        help="auto: bfloat16 where a GPU has it, float16 where not",
    )  # fmt: skip
    run.add_argument("--channels-last", action="store_true", help="memory format of the backbone")
    run.add_argument("--compile", action="store_true", help="torch.compile the backbone")
    run.add_argument(
        "--graph", action=argparse.BooleanOptionalAction,
        help="one CUDA graph a step; by default where it is possible: on one GPU that holds the "
        "faces, without --amp fp16, --accumulate, --compile and --balance-warmup",
    )  # fmt: skip
    run.add_argument(
        "--cache", choices=("auto", "ram", "device"),
        help="where decoded faces are kept; auto: on a GPU if they fill under a quarter of it",
    )  # fmt: skip
    run.add_argument("--out", type=Path, metavar="DIR", help="a new folder for the run")
    return parser


def _add_data(parser: argparse.ArgumentParser, datasets: Sequence[str]) -> None:
    data = parser.add_argument_group("data")
    data.add_argument("--dataset", choices=datasets)
    data.add_argument("--data", metavar="DIR", help="where the database lies")
    data.add_argument("--labels", choices=("label.csv", "fer2013new.csv"), help="FER+ votes")
    data.add_argument(
        "--targets", choices=CHOICES["targets"],
        help="what FER+ is trained on: majority (default), the label of most votes; votes, their "
        "shares; drawn, each epoch one vote of each face; valid and test always have the majority",
    )  # fmt: skip
    data.add_argument(
        "--classes", type=lambda text: tuple(text.split(",")), metavar="A,B,...",
        help="class folders, in the order of the labels (--dataset folder)",
    )  # fmt: skip
    data.add_argument(
        "--subject", metavar="REGEX",
        help="what names the person in a file's name (--dataset folder); up to - or _ by default",
    )  # fmt: skip
    data.add_argument(
        "--no-check-counts", dest="check_counts", action="store_false",
        help="go on if a database has not the published number of images",
    )  # fmt: skip
    data.add_argument("--faces", type=int, metavar="N", help="synthetic training faces")
    data.add_argument("--limit", type=int, metavar="N", help="train on N faces only")
    data.add_argument("--image-size", type=int, metavar="S", help="of the crop, in pixels")
    data.add_argument("--folds", type=int, metavar="F", help="of a cross-validation; default 10")
    data.add_argument("--fold-seed", type=int, metavar="N", help="another one gives other folds")


def _add_model(parser: argparse.ArgumentParser) -> None:
    model = parser.add_argument_group("model")
    model.add_argument(
        "--head", choices=("fdrl", "linear", "plain"),
        help="linear: the paper's baseline; plain: two linear layers of --hidden and --latent-dim",
    )  # fmt: skip
    model.add_argument(
        "--hidden", type=int, metavar="H",
        help="width of the plain head's middle; 0 (default): as many parameters as FDRL",
    )  # fmt: skip
    model.add_argument(
        "--batch-norm", action="store_true", help="normalize what the last layer predicts from"
    )
    model.add_argument(
        "--attach", choices=("pooled", "attention", "places"),
        help="what latents are made of: the pooled feature (paper); the maps, each by an attention "
        "of its own; or the maps, by a maximum over the latents of all places",
    )  # fmt: skip
    model.add_argument("--backbone", choices=("resnet18", "resnet10"))
    model.add_argument("--width", type=int, metavar="C", help="channels of the first stage; 64")
    model.add_argument(
        "--small-stem", action=argparse.BooleanOptionalAction,
        help="halve an image before the blocks, not quarter it",
    )  # fmt: skip
    model.add_argument(
        "--last-stride", type=int, choices=(1, 2),
        help="of the last stage; 1 leaves four times as many places for --attach",
    )  # fmt: skip
    model.add_argument("--no-intra", dest="intra", action="store_false", help="without Intra-RM")
    model.add_argument("--no-inter", dest="inter", action="store_false", help="without Inter-RM")
    model.add_argument(
        "--backbone-weights", metavar="FILE",
        help="a ResNet-18 to start from: MS-Celeb-1M's, torchvision's, or a checkpoint of ours",
    )  # fmt: skip
    model.add_argument("--imagenet", action="store_true", help="start from torchvision's weights")
    model.add_argument("--freeze-backbone", action="store_true", help="train the head alone")
    model.add_argument(
        "--reduction", choices=("sum", "mean", "share"),
        help="how gates become Intra-W: sum is equation 4 as printed",
    )  # fmt: skip
    model.add_argument(
        "--gate-init", choices=("uniform", "linear"),
        help="where gates start: uniform (default), where Intra-W is 1/M; linear, as PyTorch's",
    )  # fmt: skip
    model.add_argument("--num-latents", type=int, metavar="M")
    model.add_argument("--latent-dim", type=int, metavar="D")
    model.add_argument("--delta", type=float)
    model.add_argument(
        "--self-feature", choices=("intra", "message"),
        help="what equation 11 mixes with the inter-aware feature; message: a public code's",
    )  # fmt: skip
    model.add_argument(
        "--normalize-latents", action="store_true",
        help="let the gates of Intra-RM see normalized latents; not the paper's",
    )  # fmt: skip
    loss = parser.add_argument_group("loss")
    for name in ("compactness", "balance", "distribution"):
        loss.add_argument(f"--lambda-{name}", type=float, metavar="W")
    loss.add_argument(
        "--lambda-peak", type=float, metavar="W",
        help="of the entropy of each face's Intra-W; 0 (default): none, as in the paper",
    )  # fmt: skip
    loss.add_argument(
        "--lambda-apart", type=float, metavar="W",
        help="of what takes the classes' Intra-W apart; 0 (default): none, as in the paper",
    )  # fmt: skip
    loss.add_argument(
        "--balance-warmup", type=float, metavar="SHARE",
        help="of the training, over which --lambda-balance rises from 0; 0 (default): none",
    )  # fmt: skip
    loss.add_argument(
        "--center-update", choices=("alpha", "ema", "gradient", "frozen"),
        help="frozen: where a normal distribution put them, as in a public code",
    )  # fmt: skip
    loss.add_argument("--label-smoothing", type=float, metavar="S", help="of the cross-entropy")
    loss.add_argument(
        "--criterion", choices=CHOICES["criterion"],
        help="of the classes: ce (default), the cross-entropy; focal, which weighs down faces that "
        "are classified well",
    )  # fmt: skip
    loss.add_argument(
        "--focal-gamma", type=float, metavar="G", help="how strongly; 2 by default, 0 is ce"
    )
    loss.add_argument(
        "--class-weights", choices=CHOICES["class_weights"],
        help="in the classification loss, by how many training faces a class has: balanced, "
        "N / (K n); sqrt, the square root of that, so scaled that the mean over faces is 1",
    )  # fmt: skip
    loss.add_argument(
        "--logit-adjust", type=float, metavar="TAU",
        help="in training, add TAU times the logarithm of a class's share to its logit; 0 "
        "(default): none",
    )  # fmt: skip


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    recipe = parser.add_argument_group("recipe")
    recipe.add_argument(
        "--preset", choices=tuple(PRESETS),
        help="paper: section 4.2 to the letter, made for a face-pretrained backbone; "
        "scratch (default): from nothing, in minutes; strong: the same for longer, with more "
        "against learning by heart",
    )  # fmt: skip
    recipe.add_argument("--epochs", type=int)
    recipe.add_argument("--batch-size", type=int, help="over all processes together")
    recipe.add_argument("--lr", type=float)
    recipe.add_argument("--schedule", choices=("steps", "onecycle"))
    recipe.add_argument(
        "--weight-decay", type=float, help="decoupled (AdamW), of weights and not of biases"
    )
    recipe.add_argument(
        "--augment", choices=("paper", "strong"), help="strong: turn, scale, light and hide too"
    )
    recipe.add_argument(
        "--sampler", choices=CHOICES["sampler"],
        help="shuffle (default): each face once an epoch; balanced: each class equally often, its "
        "faces drawn with replacement",
    )  # fmt: skip
    recipe.add_argument(
        "--accumulate", type=int, metavar="A",
        help="send a batch through the backbone in A parts; losses are those of the whole batch",
    )  # fmt: skip
    recipe.add_argument("--clip", type=float, metavar="NORM", help="clip the gradient's norm")
    recipe.add_argument("--ema", type=float, metavar="DECAY", help="evaluate averaged weights")
    recipe.add_argument(
        "--sync-batch-norm", action="store_true", help="normalize over the batch of all processes"
    )
    recipe.add_argument("--seed", type=int)


def fill_options(given: dict[str, object]) -> Options:
    """Return the given options, with the remaining ones from a preset and the defaults."""
    known = {field.name: field.default for field in fields(Options)}
    preset = dict(PRESETS[str(given.get("preset", "scratch"))])
    if "preset" not in given and given.get("dataset", "synthetic") == "synthetic":
        preset |= SYNTHETIC
    return Options(**{**known, **preset, **given})


def parse(description: str, arguments: Sequence[str] | None = None) -> Command:
    """Parse the command line of a single run; a preset sets the options that are not given."""
    parser = make_parser(description)
    parser.add_argument("--fold", type=int, metavar="F", help="train on one fold of a database")
    parser.add_argument("--resume", type=Path, metavar="DIR", help="go on with the run in DIR")
    given = vars(parser.parse_args(arguments))
    out, resume = given.pop("out", None), given.pop("resume", None)
    if resume is not None and (given or out is not None):
        parser.error("--resume takes everything from the run's folder; say nothing else")
    try:
        if resume is not None:
            return Command(load_options(resume), None, resume)
        return Command(fill_options(given), out, None)
    except (OSError, ValueError, TypeError) as error:
        parser.error(f"cannot go on with {resume}: {error}" if resume else str(error))
