"""Figures 3 and 6: show what each latent represents by its Intra-W."""

import numpy as np
from numpy.typing import NDArray

from fer.report.folder import ReportedRun

MIN_SPREAD = 1e-3
"""Deviation over faces, relative to the mean, below which Intra-W does not distinguish faces."""

Weights = NDArray[np.float32]


def explain_uninformative(run: ReportedRun) -> str | None:
    """Return why the Intra-W of a run does not distinguish faces, or None if it does."""
    weights = run.evaluation.intra_weights
    if weights is None:
        return "The linear head has no latents."
    if not run.options.intra:
        return "This run was made without Intra-RM: every Intra-W is 1."
    shown = weights[run.first_model_faces].astype(np.float64)
    spread = float((shown.std(axis=0) / np.maximum(np.abs(shown).mean(axis=0), 1e-12)).max())
    if spread >= MIN_SPREAD:
        return None
    text = (
        "Intra-W is (almost) the same for every face: its deviation over faces is at most "
        f"{100 * spread:.2g} % of its mean in every latent."
    )
    if (run.options.reduction, run.options.gate_init) == ("sum", "linear"):
        text += (
            " It is the sum of equation 4 as printed, with gates that started near one half: the "
            "balance loss drives it to a corner where a backbone from scratch hardly learns."
        )
    return text


def class_means(
    weights: Weights, labels: NDArray[np.int64], num_classes: int
) -> NDArray[np.float64]:
    """Return the mean Intra-W (K, M) of each class; NaN for a class without faces."""
    means = np.full((num_classes, weights.shape[1]), np.nan)
    for k in np.unique(labels):
        means[k] = weights[labels == k].mean(axis=0, dtype=np.float64)
    return means


def find_top_faces(weights: Weights, faces: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return, for each latent, the `faces` with the highest Intra-W, highest first (M, count)."""
    order = np.argsort(-weights[faces], axis=0, kind="stable")[:count]
    found: NDArray[np.int64] = faces[order].T
    return found
