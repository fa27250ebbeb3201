"""Attach the head to the feature maps before pooling instead of, as in the paper, to their mean.

Facial actions are local, and pooling before the decomposition discards the positions. Both ways to
keep them are ours, not the paper's. The studies `attachment`, `stages` and `finer` in
benchmarks/studies/ measure them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fdrl_layers import FDRLHead, FDRLOutput


class MapHead(nn.Module):
    """Apply a head to flattened maps, as returned by a ResNet without its pooling.

    Args:
        head: The paper's head for pooled features.
        use_attention: Let each latent j pool the maps with its own attention, a softmax over
            places of :math:`q_j^T` times the layer-normalized feature of a place, and continue as
            the paper. The queries q (M, P) start at zero, which gives the paper's mean. If False,
            the feature of each place is decomposed, and each latent is the maximum over places.
    """

    def __init__(self, head: FDRLHead, *, use_attention: bool) -> None:
        super().__init__()
        self.head = head
        latents = head.decomposition.num_latents
        self.queries = (
            nn.Parameter(torch.zeros(latents, head.in_features)) if use_attention else None
        )

    def forward(self, maps: Tensor) -> FDRLOutput:
        """Return the output for flattened maps (N, P h w)."""
        places = maps.unflatten(1, (self.head.in_features, -1)).transpose(1, 2)
        decomposition = self.head.decomposition
        if self.queries is None:
            latents = decomposition(places).amax(1)
        else:
            pooled = self.attention(places).transpose(1, 2) @ places
            latents = torch.einsum("nmp,mdp->nmd", pooled, decomposition.weight)
            if decomposition.bias is not None:
                latents = latents + decomposition.bias
            latents = latents.relu()
        embedding, intra_weights, inter_weights = self.head.reconstruction(latents)
        assert self.head.classifier is not None
        logits = self.head.classifier(embedding)
        return FDRLOutput(logits, embedding, latents, intra_weights, inter_weights)

    def attention(self, places: Tensor) -> Tensor:
        """Return the attention (N, T, M) of latents to places (N, T, P), which sums to 1 over T."""
        assert self.queries is not None
        scores = F.layer_norm(places, places.shape[-1:]) @ self.queries.T
        return scores.softmax(1)
