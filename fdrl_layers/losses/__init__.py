"""The losses of FDRL, one per file, and the centers with which some of them compare features."""

from fdrl_layers.losses.balance import BalanceLoss, balance_loss
from fdrl_layers.losses.center import CenterLoss, center_loss
from fdrl_layers.losses.centers import CenterUpdate
from fdrl_layers.losses.compactness import CompactnessLoss, compactness_loss
from fdrl_layers.losses.distribution import DistributionLoss, distribution_loss
from fdrl_layers.losses.joint import FDRLLoss, FDRLLossOutput, fdrl_loss

__all__ = [
    "BalanceLoss",
    "CenterLoss",
    "CenterUpdate",
    "CompactnessLoss",
    "DistributionLoss",
    "FDRLLoss",
    "FDRLLossOutput",
    "balance_loss",
    "center_loss",
    "compactness_loss",
    "distribution_loss",
    "fdrl_loss",
]
