"""Read the folder of a run or of a cross-validation for a report."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fer.data.faces import FaceSet
from fer.evaluation.predictions import Evaluation, read_evaluation
from fer.model import checkpoint
from fer.options import Options, load_options

History = list[dict[str, float]]


@dataclass(frozen=True, eq=False)
class ReportedRun:
    """The content of a folder: one model, or the models of all folds, evaluated on test.

    Attributes:
        folder: The folder.
        options: Options of the run.
        classes: Names of the classes, in the order of the labels.
        evaluation: Evaluation of all test faces. Inter-W is that of the first model.
        faces: Small pictures of the test faces, their labels, names and units.
        units: The names of the action units; empty unless the faces are synthetic.
        model_index: The model that was tested on each face (n,): all 0, or the fold minus 1.
        histories: For each model, one row per epoch.
        summary: The summary of the run.
        first_summary: The summary of the first model's run; the same as `summary` for one model.
    """

    folder: Path
    options: Options
    classes: tuple[str, ...]
    evaluation: Evaluation
    faces: FaceSet
    units: tuple[str, ...]
    model_index: NDArray[np.int64]
    histories: tuple[History, ...]
    summary: dict[str, Any]
    first_summary: dict[str, Any]

    @property
    def folds(self) -> int:
        """The number of folds; 0 for a single run."""
        return len(self.histories) if "folds" in self.summary else 0

    @property
    def first_model_faces(self) -> NDArray[np.int64]:
        """The faces that the first model was tested on; latents and features differ by model."""
        return np.flatnonzero(self.model_index == 0)


def read_folder(folder: Path) -> ReportedRun:
    """Read everything a report requires from `folder` alone.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: The folder contains no run, or a run that has not ended.
    """
    options = _options(folder)
    folds = sorted(path.parent for path in folder.glob("fold[0-9]*/config.json"))
    if not (folder / "summary.json").is_file():
        _reject_table(folder)
        script = "fer_crossval.py" if folds else "fer_rafdb.py"
        raise ValueError(
            f"{folder} holds a run that has not ended; go on with: "
            f"python examples/{script} --resume {folder}"
        )
    summary = checkpoint.read_json(folder / "summary.json")
    runs = [folder / f"fold{row['fold']:02d}" for row in summary.get("folds", ())] or [folder]
    found = [read_evaluation(run / "evaluation.pt") for run in runs]
    classes = tuple(checkpoint.read_checkpoint(runs[0] / "last.pt")["classes"])
    if len(classes) != found[0].evaluation.probabilities.shape[1]:
        raise ValueError(f"{folder}: last.pt and evaluation.pt differ in the number of classes")
    return ReportedRun(
        folder,
        options,
        classes,
        _join_evaluations([each.evaluation for each in found]),
        _join_faces([each.faces for each in found]),
        found[0].units,
        np.repeat(np.arange(len(runs)), [len(each.faces) for each in found]),
        tuple(_history(run / "metrics.csv") for run in runs),
        summary,
        checkpoint.read_json(runs[0] / "summary.json"),
    )


def require_comparable(run: ReportedRun, baseline: ReportedRun) -> None:
    """Raise unless both were tested on the same faces, of the same classes, in the same order."""
    if run.classes != baseline.classes:
        raise ValueError(
            f"--baseline must have the classes of the run, {', '.join(run.classes)}; "
            f"{baseline.folder} has {', '.join(baseline.classes)}"
        )
    same = run.faces.names == baseline.faces.names
    if not same or not torch.equal(run.faces.labels, baseline.faces.labels):
        raise ValueError(
            f"--baseline must be tested on the {len(run.faces):,} faces of the run, in the same "
            f"order; the {len(baseline.faces):,} of {baseline.folder} are not these"
        )


def _options(folder: Path) -> Options:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder")
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no run: it has no config.json")
    try:
        return load_options(folder)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder} holds no run: config.json is of something else") from error


def _reject_table(folder: Path) -> None:
    cells = sorted(path.parent for path in folder.glob("*/seed*/config.json"))
    if cells:
        raise ValueError(
            f"{folder} holds the {len(cells)} runs of a table; name one of them, such as {cells[0]}"
        )


def _history(path: Path) -> History:
    with path.open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def _join_evaluations(parts: Sequence[Evaluation]) -> Evaluation:
    if len(parts) == 1:
        return parts[0]
    arrays = {
        each.name: None
        if getattr(parts[0], each.name) is None
        else np.concatenate([getattr(part, each.name) for part in parts])
        for each in fields(Evaluation)
        if each.name != "inter_weights"
    }
    return Evaluation(**arrays, inter_weights=parts[0].inter_weights)  # type: ignore[arg-type]


def _join_faces(parts: Sequence[FaceSet]) -> FaceSet:
    units = [part.units for part in parts if part.units is not None]
    return FaceSet(
        torch.cat([part.images for part in parts]),
        torch.cat([part.labels for part in parts]),
        tuple(name for part in parts for name in part.names),
        torch.cat(units) if units else None,
    )
