"""What the ten votes of FER+ come to: a label, or each expression's share.

Both rules are those of the FER+ authors (Barsoum et al. 2016, and the code that they published).
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
AT_MOST = 3
"""Expressions that a face may show at once."""


def without_outliers(votes: torch.Tensor) -> torch.Tensor:
    """Return counts (n, 10) as int64, a single vote being an outlier and becoming 0."""
    if votes.dtype.is_floating_point or votes.dtype.is_complex or votes.dtype == torch.bool:
        raise TypeError(f"votes must be integers, got {votes.dtype}")
    if votes.ndim != 2 or votes.shape[1] != len(COLUMNS):
        raise ValueError(f"votes must be (n, {len(COLUMNS)}), got {tuple(votes.shape)}")
    if (votes < 0).any():
        raise ValueError(f"votes must not be negative, got {int(votes.min())}")
    counts = votes.to(torch.int64)
    return counts.where(counts > 1, 0)


def majority_label(votes: torch.Tensor) -> torch.Tensor:
    """Return the majority label of each face, or -1 for a face to leave out.

    This is the "majority" mode of the FER+ authors: a count of one is an outlier and becomes
    0, in all ten columns; the largest count must then exceed half of what is left, so a tie
    and a mere plurality are left out, as is a majority for "unknown" or "not a face".

    Args:
        votes: integer counts (n, 10), in the order of `COLUMNS`.

    Returns:
        int64 (n,), an index into `CLASSES` or -1.
    """
    counts = without_outliers(votes)
    largest, label = counts.max(dim=1)
    majority = 2 * largest > counts.sum(dim=1)
    return label.where(majority & (label < len(CLASSES)), -1)


def vote_shares(votes: torch.Tensor) -> torch.Tensor:
    """Return each expression's share of a face's votes, all 0 for a face to leave out.

    This is what the FER+ authors train on in their modes "crossentropy" and "probability". Single
    votes are outliers and become 0. Expressions are then taken from the most votes down, those
    of equally many together, until they hold three quarters of the votes or are three; an
    "unknown" or "not a face" that is reached ends the list and is not taken itself. A face is left
    out if what was taken holds no more than half of all votes, or is more than three expressions.

    Args:
        votes: integer counts (n, 10), in the order of `COLUMNS`.

    Returns:
        float32 (n, 8); a row sums to 1, or to 0 for a face to leave out.
    """
    left = without_outliers(votes)
    total, taken = left.sum(1), torch.zeros_like(left)
    for _ in range(AT_MOST):
        count = taken.count_nonzero(1)
        wanted = (4 * taken.sum(1) < 3 * total) & (count < AT_MOST)
        most = left.amax(1, keepdim=True)
        now = (left == most) & (most > 0) & wanted[:, None]
        # What is no expression stays the most that is left, and so ends the list.
        now[:, len(CLASSES) :] = False
        taken, left = taken.where(~now, left), left.where(~now, 0)
    sums = taken.sum(1)
    clear = (2 * sums > total) & (taken.count_nonzero(1) <= AT_MOST)
    shares = taken[:, : len(CLASSES)] / sums.clamp_min(1)[:, None]
    return shares.where(clear[:, None], 0).float()


def draw_labels(shares: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return a label (n,) for each face, drawn by its shares (n, K)."""
    drawn = torch.rand(len(shares), 1, generator=generator, dtype=torch.float64)
    bounds = shares.cpu().double().cumsum(1)
    # Divided by their sum, that no draw falls behind the last expression, whatever the rounding.
    labels = (drawn >= bounds / bounds[:, -1:]).sum(1)
    return labels.to(shares.device)


def training_targets(faces: FaceSet, kind: str, seed: int) -> torch.Tensor:
    """Return what faces are trained on, labels (n,) or shares (n, K).

    Args:
        faces: of the training split.
        kind: "majority", their labels; "votes", their shares; or "drawn", labels drawn by them.
        seed: of the draw.
    """
    if kind == "majority":
        return faces.labels
    if faces.shares is None:
        raise ValueError(f"--targets {kind} needs faces with shares of votes, and these have none")
    if kind == "votes":
        return faces.shares
    return draw_labels(faces.shares, torch.Generator().manual_seed(seed))
