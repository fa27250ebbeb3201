"""Figure 5: map faces to points in a plane, with similar features near each other."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score

MAX_FACES = 1500
MIN_FACES = 5


@dataclass(frozen=True, eq=False)
class Map:
    """The t-SNE map of faces.

    Attributes:
        points: Positions (n, 2) in the unit square, with the same scale on both axes.
        silhouette: Silhouette score of the classes in the original features; None if undefined.
    """

    points: NDArray[np.float64]
    silhouette: float | None


def sample_faces(faces: NDArray[np.int64], max_faces: int = MAX_FACES) -> NDArray[np.int64]:
    """Return the faces that a map shows: all, or `max_faces` of them, sampled with a fixed seed."""
    if len(faces) <= max_faces:
        return faces
    return np.sort(np.random.default_rng(0).choice(faces, max_faces, replace=False))


def make_map(features: NDArray[np.float32], labels: NDArray[np.int64]) -> Map | None:
    """Map features (n, D) to a plane by t-SNE; None for fewer than five or identical features."""
    count = len(features)
    if count < MIN_FACES or not np.ptp(features, axis=0).any():
        return None
    perplexity = min(30.0, (count - 1) / 3)
    # Two principal components require two columns.
    wide = np.pad(features, ((0, 0), (0, max(0, 2 - features.shape[1]))))
    points = TSNE(init="pca", random_state=0, perplexity=perplexity).fit_transform(wide)
    points = points - points.min(axis=0)
    points /= points.max()
    points += (1 - points.max(axis=0)) / 2
    known = 2 <= len(np.unique(labels)) < count
    return Map(points, float(silhouette_score(features, labels)) if known else None)
