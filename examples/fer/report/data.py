"""The data for the scripts of the page: the rounded numbers of every face."""

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer.report import curves, latents
from fer.report.folder import ReportedRun
from fer.report.sheet import Sheet


def make_script_data(
    run: ReportedRun, baseline: ReportedRun | None, pictures: Sheet, shown: list[int]
) -> dict[str, Any]:
    """Return the data of all faces as plain values; `shown` lists the faces in the maps."""
    found, units = run.evaluation, run.faces.units
    weights = found.intra_weights if latents.explain_uninformative(run) is None else None
    return {
        "classes": run.classes,
        "units": run.units,
        "names": run.faces.names,
        "labels": found.labels.tolist(),
        "predictions": found.predictions.tolist(),
        "probabilities": np.round(found.probabilities.astype(float), 4).tolist(),
        "weights": None if weights is None else round_numbers(weights),
        "means": None if weights is None else class_means_by_model(run, weights),
        "intensities": None if units is None else np.round(units.numpy().astype(float), 2).tolist(),
        "model": run.model_index.tolist(),
        "folds": run.folds,
        "baseline": None if baseline is None else _baseline_data(baseline),
        "shown": shown,
        "charts": [asdict(chart) for chart in curves.make_charts(run)],
        "sheet": {"columns": pictures.columns, "rows": pictures.rows},
    }


def round_numbers(values: NDArray[Any]) -> list[list[float | None]]:
    """Return rows rounded to four significant digits, with None for NaN."""
    return [
        [None if np.isnan(value) else float(f"{value:.4g}") for value in row]
        for row in values.tolist()
    ]


def class_means_by_model(
    run: ReportedRun, weights: NDArray[np.float32]
) -> list[list[list[float | None]]]:
    """Return the mean Intra-W (K, M) of each class, for each model."""
    found = []
    for model in range(len(run.histories)):
        own = run.model_index == model
        means = latents.class_means(weights[own], run.evaluation.labels[own], len(run.classes))
        found.append(round_numbers(means))
    return found


def _baseline_data(baseline: ReportedRun) -> dict[str, Any]:
    found = baseline.evaluation
    return {
        "predictions": found.predictions.tolist(),
        "confidence": np.round(found.probabilities.max(axis=1).astype(float), 4).tolist(),
    }
