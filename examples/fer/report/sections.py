"""The content of each section of the page, as plain values for the template."""

import math
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer.report import embedding, facts, latents, numbers, units
from fer.report.folder import ReportedRun
from fer.report.page import format_signed

ERRORS = 24
"""Number of errors shown, the most confident ones."""

TOP = 12
"""Number of faces shown for each latent, those with the highest Intra-W (figure 3)."""

Section = dict[str, Any]


def accuracy_section(run: ReportedRun, baseline: ReportedRun | None) -> Section:
    """Return the facts, the accuracies, overall and by class, and the baseline comparison."""
    section = _scores(run) | {
        "title": facts.format_title(run),
        "options": facts.list_options(run),
        "printed": facts.paper_accuracy(run),
        "confusion": run.evaluation.scores.confusion.tolist(),
        "comparison": None if baseline is None else numbers.compare(run, baseline),
    }
    other = {} if baseline is None else _scores(baseline)
    for name in ("facts", "accuracies", "class_rows"):
        section[f"baseline_{name}".replace("class_", "")] = other.get(name, [])
    section["baseline_title"] = "" if baseline is None else facts.format_title(baseline)
    return section


def _scores(run: ReportedRun) -> Section:
    found = run.evaluation
    return {
        "facts": facts.list_facts(run),
        "accuracies": numbers.list_accuracies(run),
        "class_rows": numbers.make_class_rows(found.labels, found.predictions, len(run.classes)),
    }


def face_section(run: ReportedRun) -> Section:
    """Return the label and prediction of every face and the most confident errors."""
    found = run.evaluation
    right = found.labels == found.predictions
    confidence = found.probabilities.max(axis=1)
    wrong = np.flatnonzero(~right)
    errors = wrong[np.argsort(-confidence[wrong], kind="stable")][:ERRORS]
    return {
        "classes": run.classes,
        "names": run.faces.names,
        "labels": found.labels.tolist(),
        "predictions": found.predictions.tolist(),
        "right": right.tolist(),
        "confidence": [f"{100 * p:.0f}\N{NO-BREAK SPACE}%" for p in confidence.tolist()],
        "wrong": len(wrong),
        "errors": errors.tolist(),
    }


def embedding_section(run: ReportedRun, baseline: ReportedRun | None) -> Section:
    """Return maps of the features of a run and of its baseline in a plane (figure 5)."""
    shown = embedding.sample_faces(run.first_model_faces)
    maps = []
    for each in (run,) if baseline is None else (baseline, run):
        features = each.evaluation.embedding
        found = embedding.make_map(features[shown], run.evaluation.labels[shown])
        if found is None:
            return {"maps": [], "shown": [], "of_first": len(run.first_model_faces)}
        maps.append(
            {
                "title": facts.format_title(each),
                "width": features.shape[1],
                "silhouette": found.silhouette,
                "points": found.points.round(4).tolist(),
                "predictions": each.evaluation.predictions.tolist(),
            }
        )
    return {"maps": maps, "shown": shown.tolist(), "of_first": len(run.first_model_faces)}


def latent_section(run: ReportedRun) -> Section | None:
    """Return what each latent represents (figures 3 and 6); None without latents."""
    weights, labels = run.evaluation.intra_weights, run.evaluation.labels
    if weights is None:
        return None
    nothing = latents.explain_uninformative(run)
    if nothing is not None:
        return {"nothing": nothing}
    first = run.first_model_faces
    means = latents.class_means(weights[first], labels[first], len(run.classes))
    overall = weights[first].mean(axis=0, dtype=np.float64)
    top = latents.find_top_faces(weights, first, TOP)
    low, high = float(np.nanmin(means)), float(np.nanmax(means))
    scale = (high - low) or 1.0
    spread = run.evaluation.intra_spread(first)
    return {
        "nothing": None,
        "spread": None if spread is None else spread.sentence,
        "count": weights.shape[1],
        "means": means.tolist(),
        "low": low,
        "high": high,
        "bars": [_bars((row - low) / scale, (overall - low) / scale) for row in means],
        "top": top.tolist(),
        "classes": [
            ", ".join(
                f"{count} {run.classes[k]}"
                for k, count in Counter(labels[faces].tolist()).most_common()
            )
            for faces in top
        ],
    }


def _bars(values: NDArray[np.float64], means: NDArray[np.float64]) -> list[dict[str, float]]:
    """Return bars from a mean to a value, in percent of the height."""
    values, means = (100 * values).round(1), (100 * means).round(1)
    ends = np.sort(np.stack([values, means]), axis=0)
    return [
        {"low": low, "high": high, "mean": mean}
        for low, high, mean in zip(*ends.tolist(), means.tolist(), strict=True)
    ]


def inter_section(run: ReportedRun) -> Section | None:
    """Return the mean Inter-W of each pair of latents; None without Inter-RM or a pair."""
    weights = run.evaluation.inter_weights
    if weights is None or len(weights) < 2:
        return None
    apart = weights[~np.eye(len(weights), dtype=bool)]
    return {"rows": weights.tolist(), "low": float(apart.min()), "high": float(apart.max())}


def unit_section(run: ReportedRun, baseline: ReportedRun | None) -> Section | None:
    """Compare Intra-W with action units; None for real faces or if Intra-W is uninformative."""
    weights, first = run.evaluation.intra_weights, run.first_model_faces
    if weights is None or run.faces.units is None or latents.explain_uninformative(run) is not None:
        return None
    intensities = run.faces.units.numpy()[first]
    found = units.measure_dependence(weights[first], intensities, run.evaluation.labels[first])
    return {
        "names": run.units,
        "tables": _tables(found, len(first)),
        "strongest": [_strongest(run, found, j) for j in range(weights.shape[1])],
        "yardsticks": _tabulate_best_features(run, baseline, intensities),
    }


def _tables(found: units.Dependence, faces: int) -> list[Section]:
    # Spearman's correlation of unrelated values has the deviation 1 / sqrt(n - 1).
    chance = 1.96 / math.sqrt(max(faces - 1, 1))
    return [
        {
            "title": "Spearman correlation",
            "rows": found.correlation.tolist(),
            "signed": True,
            "note": "Over all faces. A latent that follows a class follows its units too. "
            f"Chance alone gives {chance:.2f} either way in one of twenty fields.",
        },
        {
            "title": "Spearman correlation within classes",
            "rows": found.within.tolist(),
            "signed": True,
            "note": "Ranks are taken among the faces of one class, so that what is left is the "
            "action itself and not the expression it belongs to.",
        },
        {
            "title": "Mutual information (nat)",
            "rows": found.information.tolist(),
            "signed": False,
            "high": float(np.nan_to_num(found.information).max()),
            "note": "Over all faces, of any shape of dependence; scikit-learn's estimate from "
            "three nearest neighbors, which is 0 at the least.",
        },
    ]


def _strongest(run: ReportedRun, found: units.Dependence, latent: int) -> str | None:
    unit = found.strongest[latent]
    if unit < 0:
        return None
    over, within = found.correlation[latent, unit], found.within[latent, unit]
    also = "" if math.isnan(within) else f" (within classes {format_signed(within)})"
    return f"{run.units[unit]}: {format_signed(over)}{also}"


def _tabulate_best_features(
    run: ReportedRun, baseline: ReportedRun | None, intensities: NDArray[np.float32]
) -> Section:
    assert run.evaluation.intra_weights is not None
    features = {"Intra-W": run.evaluation.intra_weights, "embedding": run.evaluation.embedding}
    if baseline is not None:
        features["baseline's embedding"] = baseline.evaluation.embedding
    columns = [
        units.find_best_features(each[run.first_model_faces], intensities)
        for each in features.values()
    ]
    return {
        "names": [f"Best of {each.shape[1]}: {name}" for name, each in features.items()],
        "rows": list(zip(*columns, strict=True)),
    }
