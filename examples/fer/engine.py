"""What every training of a head on faces needs and no reader must understand first."""

import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from fdrl_layers import FDRLOutput
from fer import augment
from fer.data.faces import Database, FaceSet
from fer.metrics import Scores, score
from fer.options import Options
from fer.ranks import Ranks


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a model said of a split, in the split's order."""

    scores: Scores
    labels: NDArray[np.int64]
    intra_weights: NDArray[np.float32] | None


def limited(database: Database, options: Options) -> Database:
    """Return the database with `--limit` training faces, the same ones whatever the seed."""
    faces = database.splits["train"]
    if options.limit is not None and options.limit < len(faces):
        drawn = torch.randperm(len(faces), generator=torch.Generator().manual_seed(0))
        chosen = drawn[: options.limit]
        faces = FaceSet(
            faces.images[chosen],
            faces.labels[chosen],
            tuple(faces.names[i] for i in chosen.tolist()),
            None if faces.units is None else faces.units[chosen],
        )
        splits = {**database.splits, "train": faces}
        database = Database(database.name, database.classes, splits, database.units)
    if len(faces) < options.batch_size:
        raise ValueError(
            f"{database.name}: {len(faces)} training faces do not fill a batch of "
            f"{options.batch_size} (--batch-size)"
        )
    return database


def autocast(options: Options, device: torch.device) -> AbstractContextManager[object]:
    """Return bfloat16 autocast where it is wanted and the GPU has it."""
    usable = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=usable and options.amp == "auto")


def training_batches(
    faces: FaceSet, options: Options, epoch: int, ranks: Ranks
) -> Iterator[tuple[Tensor, Tensor]]:
    """Give an epoch's batches: this process's part of each, augmented, with its labels.

    Order and augmentation are drawn for the joint batch from (seed, epoch) alone. So a resumed
    run meets the faces that an undisturbed one does, and so do two processes and one. The last,
    smaller batch is left out; the order being new each epoch, no face is left out for long.
    """
    generator = torch.Generator().manual_seed(1_000_003 * options.seed + epoch)
    order = torch.randperm(len(faces), generator=generator)
    starts = range(0, len(faces) - options.batch_size + 1, options.batch_size)
    mine = ranks.mine(options.batch_size)
    title = f"epoch {epoch}/{options.epochs}"
    for start in tqdm(starts, desc=title, leave=False, disable=None if ranks.first else True):
        chosen = order[start : start + options.batch_size]
        drawn = augment.draw(len(chosen), options.image_size, generator)
        images = faces.images[chosen[mine]].to(ranks.device, non_blocking=True)
        labels = faces.labels[chosen[mine]].to(ranks.device, non_blocking=True)
        yield augment.for_training(images, drawn[mine], options.image_size), labels


def logits_of(output: FDRLOutput | Tensor) -> Tensor:
    """Return the logits of either head."""
    return output.logits if isinstance(output, FDRLOutput) else output


@torch.no_grad()
def evaluate(
    model: nn.Module, faces: FaceSet, classes: int, options: Options, ranks: Ranks
) -> Evaluation:
    """Hold a model's predictions against a split's labels.

    Each process takes its own part of the split, without padding, so that every face counts once.
    """
    model.eval()
    predicted: list[Tensor] = []
    weights: list[Tensor] = []
    part = ranks.mine(len(faces))
    for images in faces.images[part].split(2 * options.batch_size):
        with autocast(options, ranks.device):
            output = model(augment.for_evaluation(images.to(ranks.device), options.image_size))
        predicted.append(logits_of(output).argmax(1).cpu())
        if isinstance(output, FDRLOutput):
            weights.append(output.intra_weights.float().cpu())
    model.train()
    empty = torch.empty(0, dtype=torch.int64)
    predictions = torch.cat(ranks.gathered(torch.cat([empty, *predicted]))).numpy()
    labels = faces.labels.numpy()
    every = ranks.gathered(torch.cat(weights) if weights else None)
    known = [each for each in every if each is not None]
    return Evaluation(
        score(labels, predictions, classes), labels, torch.cat(known).numpy() if known else None
    )


def greeting(database: Database, options: Options, ranks: Ranks, folder: Path) -> str:
    """Say what is about to happen, and a warning where it is known to end badly."""
    sizes = ", ".join(f"{len(faces):,} {split}" for split, faces in database.splits.items())
    where = f"{ranks.world} x {machine(ranks.device)}" if ranks.world > 1 else machine(ranks.device)
    said = f"{database.name}: {sizes} faces; {options.head} head; {where}; writing to {folder}"
    if options.head == "fdrl" and options.reduction == "sum":
        said += (
            "\nIntra-W is the sum of equation 4 as printed. It wants a backbone that knows faces; "
            "from scratch it hardly learns, where --reduction mean does."
        )
    return said


def machine(device: torch.device) -> str:
    """Say in a few words what a run ran on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
