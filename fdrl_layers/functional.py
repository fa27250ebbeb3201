"""Functional forms of the layers and losses: pure functions of features and parameters."""

from fdrl_layers.head import fdrl_head
from fdrl_layers.layers import (
    feature_decomposition,
    feature_reconstruction,
    inter_relation,
    intra_relation,
)
from fdrl_layers.losses import (
    balance_loss,
    center_loss,
    compactness_loss,
    distribution_loss,
    fdrl_loss,
)

__all__ = [
    "balance_loss",
    "center_loss",
    "compactness_loss",
    "distribution_loss",
    "fdrl_head",
    "fdrl_loss",
    "feature_decomposition",
    "feature_reconstruction",
    "inter_relation",
    "intra_relation",
]
