"""FDRL, Feature Decomposition and Reconstruction Learning (CVPR 2021), as layers and losses.

All docstrings use the same shape letters: N batch, P basic-feature width, M latents, D latent
width, K classes; ``*`` is any number of leading axes.
"""

from fdrl_layers import functional
from fdrl_layers.cam import latent_cam
from fdrl_layers.head import FDRLHead, FDRLOutput
from fdrl_layers.intra_spread import IntraSpread, intra_spread
from fdrl_layers.layers import (
    FeatureDecomposition,
    FeatureReconstruction,
    InterRelation,
    IntraRelation,
)
from fdrl_layers.logits_only import LogitsOnly
from fdrl_layers.losses import (
    BalanceLoss,
    CenterLoss,
    CompactnessLoss,
    DistributionLoss,
    FDRLLoss,
    FDRLLossOutput,
)
from fdrl_layers.model import FDRLModel, attach_head
from fdrl_layers.ops.backend import BackendChoice, use_backend

__version__ = "0.1.0"

__all__ = [
    "BackendChoice",
    "BalanceLoss",
    "CenterLoss",
    "CompactnessLoss",
    "DistributionLoss",
    "FDRLHead",
    "FDRLLoss",
    "FDRLLossOutput",
    "FDRLModel",
    "FDRLOutput",
    "FeatureDecomposition",
    "FeatureReconstruction",
    "InterRelation",
    "IntraRelation",
    "IntraSpread",
    "LogitsOnly",
    "__version__",
    "attach_head",
    "functional",
    "intra_spread",
    "latent_cam",
    "use_backend",
]
