"""The joint loss as public code writes it: loops over branches and classes, autograd for the rest.

With `LoopHead` it is the reference of the training parity test, and a baseline to measure against.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fdrl_layers import FDRLLossOutput, FDRLOutput


class LoopLoss(nn.Module):
    """What `FDRLLoss` computes under "alpha", branch by branch and class by class."""

    def __init__(
        self,
        num_classes: int,
        *,
        num_latents: int = 9,
        latent_dim: int = 128,
        weights: tuple[float, float, float] = (1e-4, 1.0, 1e-4),
        rate: float = 0.5,
    ) -> None:
        super().__init__()
        self.weights, self.rate = weights, rate
        self.latent_centers = [torch.zeros(latent_dim) for _ in range(num_latents)]
        self.class_centers = [torch.zeros(num_latents) for _ in range(num_classes)]
        self.latents_seen = False
        self.classes_seen = [False] * num_classes

    def forward(self, output: FDRLOutput, target: Tensor) -> FDRLLossOutput:
        """Return the joint loss and its terms; move the centers on."""
        held, class_held = self._move(output, target)
        compactness = torch.zeros((), dtype=held[0].dtype, device=held[0].device)
        for j, center in enumerate(held):
            squared = (output.latents[:, j] - center).square().sum(1)
            compactness = compactness + squared.mean()
        classification = F.cross_entropy(output.logits, target)
        uniform = 1 / output.intra_weights.shape[1]
        balance = (output.intra_weights.mean(0) - uniform).abs().sum()
        offsets = output.intra_weights - torch.stack(class_held)[target]
        distribution = offsets.square().sum(1).mean()
        total = (
            classification
            + self.weights[0] * compactness
            + self.weights[1] * balance
            + self.weights[2] * distribution
        )
        return FDRLLossOutput(total, classification, compactness, balance, distribution)

    @torch.no_grad()
    def _move(self, output: FDRLOutput, target: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Move all centers by Wen et al.'s rule, and return what they were before."""
        held = []
        for j in range(len(self.latent_centers)):
            rows = output.latents[:, j]
            center = self.latent_centers[j].to(rows) if self.latents_seen else rows.mean(0)
            held.append(center)
            self.latent_centers[j] = self._step(center, rows)
        self.latents_seen = True
        class_held = []
        for k in range(len(self.class_centers)):
            rows = output.intra_weights[target == k]
            center = self.class_centers[k].to(rows)
            if len(rows) and not self.classes_seen[k]:
                center, self.classes_seen[k] = rows.mean(0), True
            class_held.append(center)
            self.class_centers[k] = self._step(center, rows) if len(rows) else center
        return held, class_held

    def _step(self, center: Tensor, rows: Tensor) -> Tensor:
        return center - self.rate * (center - rows).sum(0) / (1 + len(rows))
