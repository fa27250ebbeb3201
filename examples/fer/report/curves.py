"""The training curves: losses and accuracies of each epoch."""

import math
from dataclasses import dataclass

import numpy as np

from fer.evaluation.summary import TERMS
from fer.report.folder import ReportedRun


@dataclass(frozen=True)
class Line:
    """A line of a chart; None for values that are not finite."""

    name: str
    values: list[float | None]


@dataclass(frozen=True)
class Chart:
    """Lines over epochs."""

    title: str
    unit: str
    lines: list[Line]


def make_charts(run: ReportedRun) -> list[Chart]:
    """Return charts of the accuracies, of the loss, and for FDRL of each of its terms."""
    names = set(run.histories[0][0])
    splits = [split for split in ("train", "valid", "test") if f"{split}_accuracy" in names]
    found = [
        Chart("Accuracy", "%", [_line(run, s, f"{s}_accuracy") for s in splits]),
        Chart(
            "Mean class accuracy",
            "%",
            [_line(run, s, f"{s}_mean_class_accuracy") for s in splits if s != "train"],
        ),
        Chart("Loss", "", [_line(run, "train", "train_total")]),
    ]
    terms = [term for term in TERMS if f"train_{term}" in names]
    return found + [
        Chart(f"{term} loss".capitalize(), "", [_line(run, "train", f"train_{term}")])
        for term in terms
    ]


def _line(run: ReportedRun, name: str, column: str) -> Line:
    """Return a column, averaged over the folds of a cross-validation, which have equal lengths."""
    means = np.mean([[row[column] for row in history] for history in run.histories], axis=0)
    return Line(name, [float(v) if math.isfinite(v) else None for v in means])
