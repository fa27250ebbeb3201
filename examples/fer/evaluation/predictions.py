"""Predictions of a model for a split, stored so that a report requires only the run's folder."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from fdrl_layers import FDRLOutput, IntraSpread, intra_spread
from fer.data.faces import FaceSet
from fer.evaluation.metrics import Scores, score
from fer.model import checkpoint
from fer.model.build import compute_outputs, get_logits
from fer.options import Options
from fer.training import augment, precision
from fer.training.ranks import Ranks

THUMBNAIL = 48
"""Width and height in pixels of the faces that are stored with an evaluation."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The predictions of a model for a split, in the split's order.

    Attributes:
        labels: The true classes (n,).
        probabilities: The probability of each class (n, K).
        embedding: FDRL's embedding, or the basic feature of another head (n, D).
        intra_weights: Intra-W (n, M) of FDRL.
        inter_weights: The mean Inter-W (M, M) of FDRL.
    """

    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    embedding: NDArray[np.float32]
    intra_weights: NDArray[np.float32] | None = None
    inter_weights: NDArray[np.float32] | None = None

    @property
    def predictions(self) -> NDArray[np.int64]:
        """The most probable class of each face."""
        found: NDArray[np.int64] = self.probabilities.argmax(1)
        return found

    @property
    def scores(self) -> Scores:
        """The metrics of the predictions for the labels."""
        return score(self.labels, self.predictions, self.probabilities.shape[1])

    def intra_spread(self, faces: NDArray[np.int64] | None = None) -> IntraSpread | None:
        """Return how much Intra-W varies over all or the given faces; None without latents."""
        if self.intra_weights is None:
            return None
        chosen = slice(None) if faces is None else faces
        weights, labels = self.intra_weights[chosen], self.labels[chosen]
        return intra_spread(torch.from_numpy(weights), torch.from_numpy(labels))


@torch.no_grad()
def evaluate(model: nn.Sequential, faces: FaceSet, options: Options, ranks: Ranks) -> Evaluation:
    """Return the predictions of a model for a split together with the labels.

    Each process evaluates its own part of the split without padding, so every face counts once.
    """
    before = model.training
    model.eval()
    rows: list[dict[str, Tensor]] = []
    for images in faces.images[ranks.local_slice(len(faces))].split(2 * options.batch_size):
        made = augment.crop_for_evaluation(images.to(ranks.device), options.image_size)
        if options.channels_last:
            made = made.contiguous(memory_format=torch.channels_last)
        with precision.autocast(options, ranks.device):
            embedding, output = compute_outputs(model, made)
        rows.append(_row(embedding, output))
    model.train(before)
    mine = (
        {name: torch.cat([row[name] for row in rows]).numpy() for name in rows[0]} if rows else {}
    )
    parts = [part for part in ranks.gather(mine) if part]
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    inter = whole.pop("inter_weights", None)
    labels = faces.labels.cpu().numpy()
    mean = None if inter is None else inter.mean(0)
    return Evaluation(labels, inter_weights=mean, **whole)


def _row(embedding: Tensor, output: FDRLOutput | Tensor) -> dict[str, Tensor]:
    row = {
        "probabilities": F.softmax(get_logits(output).float(), dim=1),
        "embedding": embedding.float(),
    }
    if isinstance(output, FDRLOutput):
        row["intra_weights"] = output.intra_weights.float()
        if output.inter_weights is not None:
            row["inter_weights"] = output.inter_weights.float()
    return {name: value.cpu() for name, value in row.items()}


@dataclass(frozen=True, eq=False)
class StoredEvaluation:
    """An evaluation from a run's folder, with its faces.

    Attributes:
        evaluation: The predictions of the model.
        faces: Small pictures of the faces, their labels, names and units.
        units: The names of the action units.
    """

    evaluation: Evaluation
    faces: FaceSet
    units: tuple[str, ...]


def save_evaluation(
    path: Path, evaluation: Evaluation, faces: FaceSet, units: tuple[str, ...]
) -> None:
    """Write an evaluation with small pictures of its faces."""
    arrays = {each.name: getattr(evaluation, each.name) for each in fields(Evaluation)}
    small = F.interpolate(
        faces.images.cpu().float(), (THUMBNAIL, THUMBNAIL), mode="bilinear", antialias=True
    )
    content: dict[str, Any] = {
        name: None if value is None else torch.from_numpy(np.ascontiguousarray(value))
        for name, value in arrays.items()
    }
    content |= {
        "images": small.round_().clamp_(0, 255).byte(),
        "names": list(faces.names),
        "units": faces.units,
        "unit_names": list(units),
    }
    checkpoint.write_checkpoint(path, content)


def read_evaluation(path: Path) -> StoredEvaluation:
    """Read an evaluation written by `save_evaluation`."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: the run has not ended yet")
    content = checkpoint.load_tensors(path)
    arrays: dict[str, Any] = {
        each.name: None if content[each.name] is None else content[each.name].numpy()
        for each in fields(Evaluation)
    }
    faces = FaceSet(content["images"], content["labels"], tuple(content["names"]), content["units"])
    return StoredEvaluation(Evaluation(**arrays), faces, tuple(content["unit_names"]))
