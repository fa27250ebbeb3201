"""Draw the two figures of a run: the confusion matrix and the mean Intra-W per class."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import ConfusionMatrixDisplay

from fer.data import Database
from fer.evaluation.predictions import Evaluation
from fer.options import Options


def draw_all(folder: Path, found: Evaluation, database: Database, options: Options) -> None:
    """Draw both figures of an evaluation on test; the second one only if there is Intra-W."""
    scores, classes = found.scores, database.classes
    title = f"{database.name}, {options.head} head: {scores.accuracy:.1f} % on test"
    draw_confusion(scores.confusion, classes, title, folder / "confusion.png")
    if found.intra_weights is not None and options.intra:
        title = f"{database.name} test, reduction={options.reduction!r}"
        path = folder / "intra_weights.png"
        draw_intra_weights(found.intra_weights, found.labels, classes, title, path)


def save(figure: Figure, path: Path) -> None:
    """Write a figure to a file, without a display."""
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=150)


def draw_confusion(
    confusion: NDArray[np.int64], classes: Sequence[str], title: str, path: Path
) -> None:
    """Draw a confusion matrix with each row in percent of its true class."""
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    axes = figure.add_subplot()
    percent = 100 * confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    shown = ConfusionMatrixDisplay(percent, display_labels=list(classes))
    shown.plot(ax=axes, cmap="Blues", values_format=".0f", colorbar=False, xticks_rotation=45)
    shown.im_.set_clim(0, 100)
    axes.set_title(title)
    axes.set_xlabel("predicted (% of the true class)")
    axes.set_ylabel("true")
    save(figure, path)


def draw_intra_weights(
    intra_weights: NDArray[np.float32],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    title: str,
    path: Path,
) -> None:
    """Draw the mean Intra-W (K, M) of each class as a heat map (figure 6 of the paper)."""
    m = intra_weights.shape[1]
    means = np.full((len(classes), m), np.nan)
    for k in np.unique(labels):
        means[k] = intra_weights[labels == k].mean(axis=0)
    figure = Figure(figsize=(1.8 + 0.6 * m, 1.6 + 0.45 * len(classes)), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(means, cmap="viridis", aspect="auto")
    axes.set_xticks(range(m), [str(j + 1) for j in range(m)])
    axes.set_yticks(range(len(classes)), list(classes))
    axes.set_xlabel("latent")
    axes.set_title(title)
    figure.colorbar(image, ax=axes, label="mean Intra-W")
    save(figure, path)
