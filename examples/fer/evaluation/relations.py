"""What Intra-W, Inter-W and the distances behind it do while a head learns."""

import torch
from torch import Tensor, nn

from fdrl_layers import FDRLHead, FDRLOutput


@torch.no_grad()
def relations(head: nn.Module, basic: Tensor) -> dict[str, float]:
    """Say in a few numbers what a head's relation weights are on basic features (n, P).

    `intra_weight` is the mean Intra-W, and `intra_spread` its deviation over faces, a mean over
    latents: 0 says that it tells no face from another. `distance` and `inter_weight` are means over
    pairs of two latents; Inter-W is the hyperbolic tangent of the distance of their messages, and
    `saturated` the share of it above 0.999, where it hardly learns.
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
