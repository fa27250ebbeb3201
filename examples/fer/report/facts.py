"""Short descriptions of a run: the recipe, the faces, the machine and the versions."""

import math
from pathlib import Path

from fer.data import DATABASES
from fer.report.folder import ReportedRun


def format_title(run: ReportedRun) -> str:
    """Return the title of a run: its database and head."""
    kind = "FDRL" if run.options.head == "fdrl" else run.options.head
    return f"{database_name(run)}, {kind} head"


def database_name(run: ReportedRun) -> str:
    """Return the name of the database, or of its folder for class folders."""
    options = run.options
    return Path(options.data or "").name if options.dataset == "folder" else options.dataset


def list_facts(run: ReportedRun) -> list[tuple[str, str]]:
    """Return the names and descriptions of what was run."""
    options, first = run.options, run.first_summary
    counts = ", ".join(f"{count:,} {split}" for split, count in first["faces"].items())
    if run.folds:
        counts = f"{len(run.faces):,} in {run.folds} folds by person (fold 1: {counts})"
    start = "ImageNet" if options.imagenet else "random weights"
    if options.backbone_weights is not None:
        start = Path(options.backbone_weights).name
    seconds = first["seconds"]
    return [
        ("Database", database_name(run)),
        ("Faces", counts),
        (
            "Backbone",
            f"{describe_backbone(run)} from {start}" + ", frozen" * options.freeze_backbone,
        ),
        ("Head", describe_head(run)),
        *([("Losses", describe_losses(run))] if options.head == "fdrl" else []),
        ("Recipe", describe_recipe(run)),
        ("Seed", f"{options.seed}"),
        (
            "Machine",
            f"{first['machine']}; {format_duration(seconds)}" + " a fold" * bool(run.folds),
        ),
        ("Versions", f"fdrl-layers {first['fdrl_layers']}, torch {first['torch']}"),
    ]


def describe_backbone(run: ReportedRun) -> str:
    """Describe the backbone; settings of the paper are not mentioned."""
    options = run.options
    parts = [options.backbone.replace("resnet", "ResNet-")]
    if options.width != 64:
        parts.append(f"of {options.width} channels")
    if options.small_stem:
        parts.append("with a small stem")
    if options.last_stride != 2:
        parts.append(f"with a last stride of {options.last_stride}")
    return " ".join(parts)


def describe_recipe(run: ReportedRun) -> str:
    """Describe the training; of the settings that are off by default, only those that are on."""
    options = run.options
    parts = [
        f"preset {options.preset}: {options.image_size} pixels, {options.epochs} epochs",
        f"batches of {options.batch_size}",
        f"Adam at {options.lr:g}",
        f"{options.schedule} schedule",
        f"{options.augment} augmentation",
    ]
    for name in ("limit", "weight_decay", "label_smoothing", "logit_adjust", "clip", "ema"):
        value = getattr(options, name)
        if value:
            parts.append(f"{name.replace('_', ' ')} {value:g}")
    if options.targets != "majority":
        parts.append({"votes": "shares of votes", "drawn": "votes drawn anew"}[options.targets])
    if options.class_weights != "none":
        parts.append(f"{options.class_weights} class weights")
    parts += ["balanced sampler"] * (options.sampler == "balanced")
    if options.criterion == "focal":
        parts.append(f"focal loss of gamma {options.focal_gamma:g}")
    return ", ".join(parts)


def describe_head(run: ReportedRun) -> str:
    """Describe the head."""
    options = run.options
    if options.head == "linear":
        parts = ["linear: the paper's baseline"]
    elif options.head == "plain":
        hidden = options.hidden or "as many parameters as FDRL"
        parts = [f"plain: two layers, {hidden} and {options.latent_dim}"]
    else:
        parts = [
            f"FDRL: {options.num_latents} latents of width {options.latent_dim}",
            f"δ = {options.delta:g}",
            f"Intra-W is the {options.reduction} of the gates",
        ]
        modules = (("Intra", options.intra), ("Inter", options.inter))
        parts += [f"without {part}-RM" for part, there in modules if not there]
        parts += ["gates of normalized latents"] * options.normalize_latents
        parts += ["messages in equation 11"] * (options.self_feature == "message")
        parts += [f"on maps by {options.attach}"] * (options.attach != "pooled")
    parts += ["batch normalization before the last layer"] * options.batch_norm
    return ", ".join(parts)


def describe_losses(run: ReportedRun) -> str:
    """Describe the weights of the terms of the joint loss."""
    options = run.options
    shares = (options.lambda_compactness, options.lambda_balance, options.lambda_distribution)
    named = zip(("compactness", "balance", "distribution"), shares, strict=True)
    weighed = ", ".join(f"λ {name} {share:g}" for name, share in named)
    for name, share in (("peak", options.lambda_peak), ("apart", options.lambda_apart)):
        weighed += f", λ {name} {share:g}" if share else ""
    return f"{weighed}; centers by {options.center_update}"


def format_duration(seconds: float) -> str:
    """Format a duration in its one or two largest units."""
    minutes = math.floor(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def list_options(run: ReportedRun) -> list[tuple[str, str]]:
    """Return all options; of paths only the last component, because reports are shared."""
    plain = run.options.to_dict()
    for name in ("data", "backbone_weights"):
        if plain[name] is not None:
            plain[name] = Path(plain[name]).name
    return [(name, f"{value}") for name, value in plain.items()]


def paper_accuracy(run: ReportedRun) -> float | None:
    """Return the accuracy that the paper prints for this database and head, or None."""
    options, found = run.options, DATABASES[run.options.dataset].paper_accuracies
    if found is None or options.batch_norm or options.attach != "pooled":
        return None
    fdrl = options.head == "fdrl" and options.self_feature == "intra"
    if options.head == "linear" or (fdrl and options.intra and options.inter):
        return found[fdrl]
    return None
