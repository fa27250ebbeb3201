"""Where the head attaches: to the pooled feature, as the paper does, or to the maps before it.

Facial actions are local, and pooling before the decomposition throws the places away. Both ways to
keep them are ours: they are here to be measured, by attachment.py, stages.py and finer.py of
benchmarks/studies/.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fdrl_layers import FDRLHead, FDRLOutput


class OnMaps(nn.Module):
    """Put a head on maps that come flattened, as a ResNet without its pooling gives them.

    Args:
        head: What the paper puts on pooled features.
        attend: Let each latent j pool the maps by its own attention, a softmax over places of
            :math:`q_j^T` times the layer-normalized feature there, and go on as the paper does.
            The queries q (M, P) start at zero, where that is the paper's mean. Without it the
            feature of each place is decomposed, and each latent takes its maximum over places.
    """

    def __init__(self, head: FDRLHead, *, attend: bool) -> None:
        super().__init__()
        self.head = head
        latents = head.decomposition.num_latents
        self.queries = nn.Parameter(torch.zeros(latents, head.in_features)) if attend else None

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
        """Return how each latent attends to places (N, T, P): (N, T, M), a sum of 1 over T."""
        assert self.queries is not None
        scores = F.layer_norm(places, places.shape[-1:]) @ self.queries.T
        return scores.softmax(1)
