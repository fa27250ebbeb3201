"""The joint loss, equation 13."""

from fdrl_layers.losses.joint.function import fdrl_loss
from fdrl_layers.losses.joint.module import FDRLLoss
from fdrl_layers.losses.joint.output import FDRLLossOutput

__all__ = ["FDRLLoss", "FDRLLossOutput", "fdrl_loss"]
