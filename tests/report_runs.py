"""Folders such as runs leave them, made from drawn numbers rather than by training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fer.data.faces import FaceSet
from fer.evaluation import predictions as evaluation
from fer.evaluation.predictions import Evaluation
from fer.evaluation.summary import TERMS, summarize
from fer.model import checkpoint
from fer.options import Options
from fer.report.folder import ReportedRun, read_folder

CLASSES = ("Surprise", "Fear", "Disgust", "Happiness", "Sadness", "Anger", "Neutral")
UNITS = ("AU1 inner brow raiser", "AU4 brow lowerer", "AU12 lip corner puller", "AU25 lips part")
LATENTS = 9


def plain_faces(count: int, *, gray: bool = False, prefix: str = "test") -> FaceSet:
    """Return faces of one color each, which tell where on a sheet they are."""
    shade = torch.arange(count) * 255 // max(count - 1, 1)
    colors = torch.stack([shade, 255 - shade, (shade * 7) % 256], dim=1)[:, : 1 if gray else 3]
    images = colors.byte()[:, :, None, None].expand(-1, -1, 48, 48).contiguous()
    names = tuple(f"{prefix}_{i:05d}" for i in range(count))
    return FaceSet(images, torch.arange(count) % len(CLASSES), names)


def with_units(faces: FaceSet, seed: int = 0) -> FaceSet:
    """Give faces action units that go with their classes."""
    rng = np.random.default_rng(seed)
    likely = rng.random((len(CLASSES), len(UNITS)))[faces.labels.numpy()]
    shown = rng.random(likely.shape) < likely
    units = np.where(shown, rng.uniform(0.2, 1, likely.shape), 0).astype(np.float32)
    return replace(faces, units=torch.from_numpy(units))


def draw_evaluation(faces: FaceSet, *, head: str = "fdrl", seed: int = 0) -> Evaluation:
    """Draw what a fair model might say: about three of four right, latents that follow units."""
    rng, labels = np.random.default_rng(seed), faces.labels.numpy()
    places = rng.normal(size=(len(CLASSES), 16 if head == "fdrl" else 24))
    embedding = places[labels] + 0.8 * rng.normal(size=(len(labels), places.shape[1]))
    logits = 2.2 * np.eye(len(CLASSES))[labels] + rng.normal(size=(len(labels), len(CLASSES)))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    said = Evaluation(labels, probabilities.astype("f4"), embedding.astype("f4"))
    if head != "fdrl":
        return said
    source = places[labels] if faces.units is None else faces.units.numpy()
    columns = np.arange(LATENTS) % source.shape[1]
    weights = 0.11 + 0.03 * source[:, columns] + rng.normal(scale=0.01, size=(len(labels), LATENTS))
    inter = rng.uniform(0.2, 0.9, size=(LATENTS, LATENTS))
    inter = (inter + inter.T) / 2 * (1 - np.eye(LATENTS))
    return replace(said, intra_weights=weights.astype("f4"), inter_weights=inter.astype("f4"))


def history(options: Options, found: Evaluation, *, valid: bool = False) -> list[dict[str, Any]]:
    """Make up the rows of a training that ends at an evaluation, and was best an epoch earlier."""
    rows = []
    for epoch in range(1, options.epochs + 1):
        terms = TERMS if options.head == "fdrl" else ()
        losses = {"train_total": 3 / epoch} | {f"train_{term}": 2 / epoch for term in terms}
        row = {"epoch": epoch, "lr": 1e-3} | losses | {"train_accuracy": 90.0 - 50 / epoch}
        row |= {"images_per_second": 60.0, "waiting": 0.01, "seconds": 10.0}
        lead = 1.0 if epoch == options.epochs - 1 else 3.0 * (epoch - options.epochs)
        for split in ("valid", "test") if valid else ("test",):
            row[f"{split}_accuracy"] = found.scores.accuracy + lead
            row[f"{split}_mean_class_accuracy"] = found.scores.mean_class_accuracy + lead
        rows.append(row)
    return rows


def write_run(
    folder: Path,
    faces: FaceSet,
    found: Evaluation | None = None,
    *,
    classes: tuple[str, ...] = CLASSES,
    valid: bool = False,
    **changes: Any,
) -> Path:
    if changes.get("dataset") == "folder":
        changes["classes"] = classes
    options = Options(**{"epochs": 3, **changes})
    if found is None:
        found = draw_evaluation(faces, head=options.head, seed=options.seed)
    folder.mkdir(parents=True)
    rows = history(options, found, valid=valid)
    sizes = {"train": 700, **({"valid": 90} if valid else {}), "test": len(faces)}
    units = () if faces.units is None else UNITS
    checkpoint.write_json(folder / "config.json", options.to_dict())
    checkpoint.write_checkpoint(folder / "last.pt", {"classes": list(classes)})
    checkpoint.write_csv(folder / "metrics.csv", rows)
    evaluation.save_evaluation(folder / "evaluation.pt", found, faces, units)
    summary = summarize(rows, options, sizes, torch.device("cpu"))
    checkpoint.write_json(folder / "summary.json", summary)
    return folder


def write_and_read(folder: Path, count: int = 60, **changes: Any) -> ReportedRun:
    """Write the folder of a run on plain faces, and read it back as a report does."""
    return read_folder(write_run(folder / "run", plain_faces(count), **changes))
