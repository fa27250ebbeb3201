"""Reports of a run: one line per epoch and a summary at the end."""

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

import fdrl_layers
from fdrl_layers import IntraSpread
from fer.data import Database
from fer.options import Options
from fer.training.ranks import Ranks

TERMS = ("classification", "compactness", "balance", "distribution")


def find_best_epoch(history: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the first epoch with the best accuracy on valid, or on test if there is no valid."""
    return max(history, key=lambda row: row[f"{selection_split(row)}_accuracy"])


def selection_split(row: dict[str, Any]) -> str:
    """Return the split on which the best epoch is chosen."""
    return "valid" if "valid_accuracy" in row else "test"


def format_epoch(row: dict[str, Any], epochs: int) -> str:
    """Return the results of an epoch as one line of text."""
    parts = [f"epoch {row['epoch']:>2}/{epochs}", f"loss {row['train_total']:.3f}"]
    if f"train_{TERMS[0]}" in row:
        parts.append("(" + ", ".join(f"{t} {row[f'train_{t}']:.3g}" for t in TERMS) + ")")
    parts.append(f"train {row['train_accuracy']:.1f} %")
    for split in ("valid", "test"):
        if f"{split}_accuracy" in row:
            mean = row[f"{split}_mean_class_accuracy"]
            parts.append(f"{split} {row[f'{split}_accuracy']:.1f} % (mean class {mean:.1f} %)")
    if row.get("skipped_steps"):
        parts.append(f"{row['skipped_steps']} steps skipped, as float16 overflowed")
    speed = f"{row['images_per_second']:.0f} images/s, {100 * row['waiting']:.0f} % waiting"
    return "  ".join([*parts, f"{row['seconds']:.0f} s ({speed})"])


def summarize(
    history: Sequence[dict[str, Any]],
    options: Options,
    sizes: dict[str, int],
    device: torch.device,
) -> dict[str, Any]:
    """Return the last and the best epoch of a run, its options, duration, machine and versions."""
    return {
        "options": options.to_dict(),
        "faces": sizes,
        "best_chosen_on": selection_split(history[-1]),
        "last": history[-1],
        "best": find_best_epoch(history),
        "seconds": sum(row["seconds"] for row in history),
        "machine": describe_device(device),
        "torch": torch.__version__,
        "fdrl_layers": fdrl_layers.__version__,
    }


def format_result(summary: dict[str, Any]) -> str:
    """Return the result of a run as a few lines of text."""
    lines = []
    for name in ("last", "best"):
        row = summary[name]
        scores = ", ".join(
            f"{split} {row[f'{split}_accuracy']:.2f} % "
            f"(mean class {row[f'{split}_mean_class_accuracy']:.2f} %)"
            for split in ("valid", "test")
            if f"{split}_accuracy" in row
        )
        lines.append(f"{name} epoch ({row['epoch']}): {scores}")
    lines[1] += f"; chosen on {summary['best_chosen_on']}"
    if summary["best_chosen_on"] == "test":
        lines[1] += ", and so too good: the last epoch is the result"
    spread = summary.get("intra_spread")
    if spread is not None and spread["dead"]:
        lines.append(spread["sentence"])
    return "\n".join(lines)


def intra_spread_to_dict(found: IntraSpread) -> dict[str, Any]:
    """Return how much Intra-W varies over the test faces and its interpretation as plain values."""
    return {**asdict(found), "dead": found.dead, "sentence": found.sentence}


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the sample standard deviation, which is 0 for a single value."""
    return fmean(values), stdev(values) if len(values) > 1 else 0.0


def describe_run(database: Database, options: Options, ranks: Ranks, folder: Path) -> str:
    """Return a description of the run, with a warning for options known to train badly."""
    sizes = ", ".join(f"{len(faces):,} {split}" for split, faces in database.splits.items())
    where = (
        f"{ranks.world_size} x {describe_device(ranks.device)}"
        if ranks.world_size > 1
        else describe_device(ranks.device)
    )
    text = f"{database.name}: {sizes} faces; {options.head} head; {where}; writing to {folder}"
    pretrained = options.imagenet or options.backbone_weights is not None
    saturated = options.reduction == "sum" and options.gate_init == "linear"
    if options.head == "fdrl" and saturated and not pretrained:
        text += (
            "\nIntra-W is the sum of equation 4 as printed, and its gates start near 1/2. A "
            "backbone from scratch hardly learns so, where it does with --gate-init uniform."
        )
    return text


def describe_device(device: torch.device) -> str:
    """Return a short description of the hardware of a run."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
