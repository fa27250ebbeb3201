"""Convert the ten votes of FER+ to a label or to each expression's share.

Both rules are those of the FER+ authors (Barsoum et al. 2016, and their published code).
"""

import torch

from fer.data.faces import FaceSet

CLASSES = (
    "neutral",
    "happiness",
    "surprise",
    "sadness",
    "anger",
    "disgust",
    "fear",
    "contempt",
)
COLUMNS = (*CLASSES, "unknown", "NF")
MAX_EXPRESSIONS = 3
"""Maximum number of expressions per face."""


def remove_outliers(votes: torch.Tensor) -> torch.Tensor:
    """Return counts (n, 10) as int64 with single votes, which are outliers, set to 0."""
    if votes.dtype.is_floating_point or votes.dtype.is_complex or votes.dtype == torch.bool:
        raise TypeError(f"votes must be integers, got {votes.dtype}")
    if votes.ndim != 2 or votes.shape[1] != len(COLUMNS):
        raise ValueError(f"votes must be (n, {len(COLUMNS)}), got {tuple(votes.shape)}")
    if (votes < 0).any():
        raise ValueError(f"votes must not be negative, got {int(votes.min())}")
    counts = votes.to(torch.int64)
    return counts.where(counts > 1, 0)


def majority_label(votes: torch.Tensor) -> torch.Tensor:
    """Return the majority label of each face, or -1 for a face to exclude.

    This is the "majority" mode of the FER+ authors. A count of one is an outlier and is set to 0,
    in all ten columns. The largest count must then exceed half of the remaining votes, so ties
    and mere pluralities are excluded, as are majorities for "unknown" or "not a face".

    Args:
        votes: integer counts (n, 10), in the order of `COLUMNS`.

    Returns:
        int64 (n,), an index into `CLASSES` or -1.
    """
    counts = remove_outliers(votes)
    largest, label = counts.max(dim=1)
    majority = 2 * largest > counts.sum(dim=1)
    return label.where(majority & (label < len(CLASSES)), -1)


def vote_shares(votes: torch.Tensor) -> torch.Tensor:
    """Return each expression's share of a face's votes, all 0 for a face to exclude.

    This is the training target of the FER+ authors' modes "crossentropy" and "probability". Single
    votes are outliers and are set to 0. Expressions are then selected in decreasing order of votes,
    ties together, until they have three quarters of the remaining votes or there are three.
    "Unknown" or "not a face" ends the selection and is not selected. A face is excluded if the
    selected expressions have no more than half of these votes, or are more than three.

    Args:
        votes: integer counts (n, 10), in the order of `COLUMNS`.

    Returns:
        float32 (n, 8); a row sums to 1, or to 0 for a face to exclude.
    """
    left = remove_outliers(votes)
    total, taken = left.sum(1), torch.zeros_like(left)
    for _ in range(MAX_EXPRESSIONS):
        count = taken.count_nonzero(1)
        wanted = (4 * taken.sum(1) < 3 * total) & (count < MAX_EXPRESSIONS)
        most = left.amax(1, keepdim=True)
        now = (left == most) & (most > 0) & wanted[:, None]
        # "Unknown" and "not a face" are never removed, so they remain the maximum and end the loop.
        now[:, len(CLASSES) :] = False
        taken, left = taken.where(~now, left), left.where(~now, 0)
    sums = taken.sum(1)
    clear = (2 * sums > total) & (taken.count_nonzero(1) <= MAX_EXPRESSIONS)
    shares = taken[:, : len(CLASSES)] / sums.clamp_min(1)[:, None]
    return shares.where(clear[:, None], 0).float()


def draw_labels(shares: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw a label (n,) for each face from its shares (n, K)."""
    drawn = torch.rand(len(shares), 1, generator=generator, dtype=torch.float64)
    bounds = shares.cpu().double().cumsum(1)
    # Divide by the sum, so that no draw exceeds the last bound because of rounding.
    labels = (drawn >= bounds / bounds[:, -1:]).sum(1)
    return labels.to(shares.device)


def make_training_targets(faces: FaceSet, kind: str, seed: int) -> torch.Tensor:
    """Return the training targets of faces, labels (n,) or shares (n, K).

    Args:
        faces: the faces of the training split.
        kind: "majority": labels; "votes": shares; "drawn": labels drawn according to the shares.
        seed: the seed of the draw.
    """
    if kind == "majority":
        return faces.labels
    if faces.shares is None:
        raise ValueError(f"--targets {kind} needs faces with shares of votes, and these have none")
    if kind == "votes":
        return faces.shares
    return draw_labels(faces.shares, torch.Generator().manual_seed(seed))
