"""Measure how strongly each latent's Intra-W depends on each action unit of synthetic faces."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.feature_selection import mutual_info_regression

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Dependence:
    """The dependence of M latents on A units. A number is NaN if either is constant.

    Attributes:
        correlation: Spearman's correlation over all faces (M, A).
        within: Spearman's correlation within classes (M, A).
        information: Mutual information in nats (M, A).
        strongest: The unit with the largest absolute `correlation` for each latent (M,), or -1.
    """

    correlation: Array
    within: Array
    information: Array
    strongest: NDArray[np.int64]


@dataclass(frozen=True)
class BestFeature:
    """The feature that correlates best with a unit.

    Attributes:
        feature: Index of the feature; -1 for none.
        correlation: Its Spearman correlation.
        information: Its mutual information in nats.
    """

    feature: int
    correlation: float
    information: float


def measure_dependence(
    weights: NDArray[np.float32], units: NDArray[np.float32], labels: NDArray[np.int64]
) -> Dependence:
    """Compare Intra-W (n, M) with the intensities of units (n, A)."""
    correlation = correlate(_ranks(weights), _ranks(units))
    columns = [_information(weights, units[:, a]) for a in range(units.shape[1])]
    within = correlate(_ranks_within(weights, labels), _ranks_within(units, labels))
    strongest = [_largest(row) for row in correlation]
    return Dependence(correlation, within, np.stack(columns, axis=1), np.array(strongest))


def find_best_features(
    features: NDArray[np.float32], units: NDArray[np.float32]
) -> list[BestFeature]:
    """Return for each unit the feature of (n, D) with the largest absolute Spearman correlation."""
    correlation = correlate(_ranks(features), _ranks(units))
    found = []
    for a in range(units.shape[1]):
        best = _largest(correlation[:, a])
        if best < 0:
            found.append(BestFeature(-1, float("nan"), float("nan")))
            continue
        information = _information(features[:, [best]], units[:, a])[0]
        found.append(BestFeature(best, float(correlation[best, a]), float(information)))
    return found


def correlate(a: Array, b: Array) -> Array:
    """Return Pearson's correlation of each column of `a` with each column of `b`."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    lengths = np.outer(np.linalg.norm(a, axis=0), np.linalg.norm(b, axis=0))
    found: Array = np.divide(a.T @ b, lengths, out=np.full_like(lengths, np.nan), where=lengths > 0)
    return found


def _ranks(values: NDArray[np.float32]) -> Array:
    # Spearman's correlation is Pearson's correlation of the ranks, with mean ranks for ties.
    # Use double precision, because newer versions of SciPy keep the type of the input.
    ranks: Array = rankdata(values.astype(np.float64), axis=0)
    return ranks


def _ranks_within(values: NDArray[np.float32], labels: NDArray[np.int64]) -> Array:
    """Return ranks within each class from -1/2 to 1/2, so that no class outweighs another."""
    ranks = np.zeros(values.shape)
    for k in np.unique(labels):
        own = labels == k
        found = _ranks(values[own])
        ranks[own] = (found - found.mean(axis=0)) / len(found)
    return ranks


def _information(features: NDArray[np.float32], unit: NDArray[np.float32]) -> Array:
    if len(unit) < 5 or not np.ptp(unit):
        return np.full(features.shape[1], np.nan)
    found: Array = mutual_info_regression(features, unit, random_state=0)
    return found


def _largest(correlations: Array) -> int:
    known = np.nan_to_num(np.abs(correlations), nan=-1.0)
    best = int(known.argmax())
    return best if known[best] >= 0 else -1
