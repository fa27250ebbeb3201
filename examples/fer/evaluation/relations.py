"""Statistics of Intra-W, Inter-W and the distances of messages, to follow while a head learns."""

import torch
from torch import Tensor, nn

from fdrl_layers import FDRLHead, FDRLOutput


@torch.no_grad()
def measure_relations(head: nn.Module, basic: Tensor) -> dict[str, float]:
    """Return statistics of a head's relation weights on basic features (n, P).

    `intra_weight` is the mean of Intra-W. `intra_spread` is its deviation over faces, averaged over
    latents; 0 means that it does not distinguish faces. `distance` and `inter_weight` are means
    over pairs of two latents: Inter-W is the hyperbolic tangent of the distance of their messages.
    `saturated` is the share of Inter-W above 0.999, where its gradient almost vanishes.
    """
    if not isinstance(head, FDRLHead):
        return {}
    output: FDRLOutput = head(basic)
    found = {}
    intra, inter = head.reconstruction.intra, head.reconstruction.inter
    weights = output.intra_weights.float()
    if intra is not None:
        found["intra_weight"] = float(weights.mean())
        found["intra_spread"] = float(weights.std(0, correction=0).mean())
    if inter is not None and output.inter_weights is not None and weights.shape[1] > 1:
        features = output.latents.float() * weights.unsqueeze(-1)
        messages = torch.einsum("nmd,med->nme", features, inter.weight.float())
        if inter.bias is not None:
            messages = messages + inter.bias.float()
        others = ~torch.eye(weights.shape[1], dtype=torch.bool, device=weights.device)
        distances = torch.cdist(messages.relu(), messages.relu())[:, others]
        pairs = output.inter_weights.float()[:, others]
        found["distance"] = float(distances.mean())
        found["inter_weight"] = float(pairs.mean())
        found["saturated"] = float((pairs > 0.999).float().mean())
    return found
