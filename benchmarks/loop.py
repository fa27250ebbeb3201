"""The baseline: head and losses as an experienced PyTorch user writes them from the paper.

It has one linear layer per branch, stacks everything after the branches, computes the distances
with `torch.cdist`, and has centers that are parameters, which an optimizer updates. It dispatches
fewer operators than the loop over branches and classes that the tests use as their reference.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fdrl_layers import FDRLHead, FDRLLossOutput, FDRLOutput


class LoopHead(nn.Module):
    """FDRL with a linear layer for each branch, initialized from the parameters of a head."""

    def __init__(self, head: FDRLHead) -> None:
        super().__init__()
        intra, inter = head.reconstruction.intra, head.reconstruction.inter
        assert intra is not None
        assert inter is not None
        assert head.classifier is not None
        self.decomposition = _make_branches(head.decomposition)
        self.intra, self.inter = _make_branches(intra), _make_branches(inter)
        self.classifier, self.delta = head.classifier, head.reconstruction.delta

    def forward(self, input: Tensor) -> FDRLOutput:
        """Return the logits of basic features (N, P) and all intermediate outputs."""
        latents = [F.relu(branch(input)) for branch in self.decomposition]
        # Equation 4: a sigmoid is positive, so its L1 norm is its sum.
        weights = [
            gate(latent).sigmoid().sum(1, keepdim=True)
            for gate, latent in zip(self.intra, latents, strict=True)
        ]
        features = [weight * latent for weight, latent in zip(weights, latents, strict=True)]
        pairs = zip(self.inter, features, strict=True)
        messages = torch.stack([F.relu(edge(feature)) for edge, feature in pairs], 1)
        # cdist has no kernel for half types; autocast uses float32 too. For so few rows, cdist
        # computes each distance directly, so the diagonal is exactly 0 and needs no mask.
        exact = messages if messages.dtype.itemsize >= 4 else messages.float()
        inter_weights = torch.cdist(exact, exact).tanh()
        aware = inter_weights.to(messages.dtype) @ messages
        embedding = (self.delta * torch.stack(features, 1) + (1 - self.delta) * aware).sum(1)
        logits: Tensor = self.classifier(embedding)
        intra_weights = torch.cat(weights, 1)
        return FDRLOutput(logits, embedding, torch.stack(latents, 1), intra_weights, inter_weights)


class LoopLoss(nn.Module):
    """The joint loss with centers that start at the means of the first batch."""

    def __init__(
        self,
        num_classes: int,
        num_latents: int,
        latent_dim: int,
        lambdas: tuple[float, float, float],
    ) -> None:
        super().__init__()
        self.latent_centers = nn.Parameter(torch.zeros(num_latents, latent_dim))
        self.class_centers = nn.Parameter(torch.zeros(num_classes, num_latents))
        self.lambdas = lambdas
        self.is_initialized = False

    def forward(self, output: FDRLOutput, target: Tensor) -> FDRLLossOutput:
        """Return equation 13 and its terms."""
        if not self.is_initialized:
            self._init_centers(output, target)
        weights = output.intra_weights
        # Centers are never of a half type, and differences with them are promoted to their type.
        exact = self.class_centers.dtype
        classification = F.cross_entropy(output.logits.to(exact), target)
        compactness = (output.latents - self.latent_centers).square().sum((1, 2)).mean()
        balance = (weights.mean(0, dtype=exact) - 1 / weights.shape[1]).abs().sum()
        distribution = (weights - self.class_centers[target]).square().sum(1).mean()
        one, two, three = self.lambdas
        total = classification + one * compactness + two * balance + three * distribution
        return FDRLLossOutput(total, classification, compactness, balance, distribution)

    @torch.no_grad()
    def _init_centers(self, output: FDRLOutput, target: Tensor) -> None:
        self.latent_centers.copy_(output.latents.to(self.latent_centers.dtype).mean(0))
        weights = output.intra_weights.to(self.class_centers.dtype)
        members = F.one_hot(target, len(self.class_centers)).to(weights.dtype)
        self.class_centers.copy_(members.t() @ weights / members.sum(0).clamp(min=1)[:, None])
        self.is_initialized = True


def _make_branches(layer: nn.Module) -> nn.ModuleList:
    """Return a linear layer for each slice of a stacked layer."""
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    assert isinstance(bias, Tensor)
    branches = nn.ModuleList()
    for rows, offsets in zip(weight.detach(), bias.detach(), strict=True):
        branch = nn.Linear(rows.shape[1], rows.shape[0], device=rows.device, dtype=rows.dtype)
        branch.load_state_dict({"weight": rows, "bias": offsets})
        branches.append(branch)
    return branches
