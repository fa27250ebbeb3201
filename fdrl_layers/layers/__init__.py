"""The layers of FDRL, one per file: decomposition, intra- and inter-relation, reconstruction."""

from fdrl_layers.layers.decomposition import FeatureDecomposition, feature_decomposition
from fdrl_layers.layers.inter_relation import InterRelation, inter_relation
from fdrl_layers.layers.intra_relation import GateInit, IntraRelation, Reduction, intra_relation
from fdrl_layers.layers.reconstruction import (
    FeatureReconstruction,
    SelfFeature,
    feature_reconstruction,
)

__all__ = [
    "FeatureDecomposition",
    "FeatureReconstruction",
    "GateInit",
    "InterRelation",
    "IntraRelation",
    "Reduction",
    "SelfFeature",
    "feature_decomposition",
    "feature_reconstruction",
    "inter_relation",
    "intra_relation",
]
