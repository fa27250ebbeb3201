"""The operators of separate layers: hand-written passes if they apply, else the reference."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fdrl_layers.ops import by_hand
from fdrl_layers.ops.backend import plain, working_dtype
from fdrl_layers.ops.eager.inter_relation import InterRelation
from fdrl_layers.ops.eager.reconstruction import Reconstruction
from fdrl_layers.ops.eager.relations import Options
from fdrl_layers.ops.reference.head import (
    Reduction,
    RelationParameters,
    SelfFeature,
    collect,
    reconstruct,
)

_INTER_RELATION = InterRelation()
_RECONSTRUCTION = Reconstruction()


def collect_messages(
    features: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the inter-aware features and Inter-W of features (*, M, D), equations 8 to 10."""
    tensors = (features, weight, bias)
    if not plain(tensors) or working_dtype(features) != features.dtype:
        return collect(*tensors)
    aware, weights = by_hand.apply(_INTER_RELATION, None, (_flat(features), weight, bias))
    lead = features.shape[:-2]
    return _lead(aware, lead), _lead(weights, lead)


def reconstruct_feature(
    latents: Tensor,
    parameters: RelationParameters,
    delta: float,
    reduction: Reduction,
    self_feature: SelfFeature,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return y, Intra-W and Inter-W of latents (*, M, D), equations 3, 4 and 7 to 12."""
    if (
        parameters.intra_weight is None
        or parameters.inter_weight is None
        or self_feature != "intra"
        or not plain((latents, *parameters))
        or working_dtype(latents) != latents.dtype
    ):
        return reconstruct(latents, *parameters, delta, reduction, self_feature)
    options = Options(delta, reduction)
    y, intra, inter = by_hand.apply(_RECONSTRUCTION, options, (_flat(latents), *parameters))
    lead = latents.shape[:-2]
    return _lead(y, lead), _lead(intra, lead), _lead(inter, lead)


def _flat(rows: Tensor) -> Tensor:
    if rows.ndim == 3:
        return rows
    return rows.flatten(0, -3) if rows.ndim > 3 else rows.unsqueeze(0)


def _lead(found: Tensor, lead: Sequence[int]) -> Tensor:
    """Restore the axes that `_flat` joined, without a view, which could not be changed in place."""
    if len(lead) == 1:
        return found
    result: Tensor = torch.ops.aten._unsafe_view(found, (*lead, *found.shape[1:]))
    return result
