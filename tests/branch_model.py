"""A network in the public per-branch layout: what `fdrl_layers.convert` reads is held against it.

Each branch is a layer of its own, under the names that checkpoints of this layout have. Written
from those names and from the equations.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

NUM_LATENTS = 9


def _linear_relu(width: int, latent_dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, latent_dim), nn.ReLU())


class BranchFDN(nn.Module):
    """Equation 1, a layer a latent."""

    def __init__(self, in_features: int, latent_dim: int) -> None:
        super().__init__()
        self.fdn_fc0 = _linear_relu(in_features, latent_dim)
        self.fdn_fc1 = _linear_relu(in_features, latent_dim)
        self.fdn_fc2 = _linear_relu(in_features, latent_dim)
        self.fdn_fc3 = _linear_relu(in_features, latent_dim)
        self.fdn_fc4 = _linear_relu(in_features, latent_dim)
        self.fdn_fc5 = _linear_relu(in_features, latent_dim)
        self.fdn_fc6 = _linear_relu(in_features, latent_dim)
        self.fdn_fc7 = _linear_relu(in_features, latent_dim)
        self.fdn_fc8 = _linear_relu(in_features, latent_dim)

    def forward(self, input: Tensor) -> list[Tensor]:
        return [layer(input) for layer in self.children()]


class BranchIntra(nn.Module):
    """Equations 3, 4 and 7, a layer a latent."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()

        def gate() -> nn.Sequential:
            return nn.Sequential(nn.Linear(latent_dim, latent_dim), nn.Sigmoid())

        self.intra_fc0, self.intra_fc1, self.intra_fc2 = gate(), gate(), gate()
        self.intra_fc3, self.intra_fc4, self.intra_fc5 = gate(), gate(), gate()
        self.intra_fc6, self.intra_fc7, self.intra_fc8 = gate(), gate(), gate()

    def forward(self, latents: Sequence[Tensor]) -> list[Tensor]:
        gates = [layer(latent) for layer, latent in zip(self.children(), latents, strict=True)]
        weights = [gate.norm(p=1, dim=1, keepdim=True) for gate in gates]
        return [weight * latent for weight, latent in zip(weights, latents, strict=True)]


class BranchInter(nn.Module):
    """Equations 8 to 11, a layer a latent; `mixes_messages` departs from equation 11."""

    def __init__(self, latent_dim: int, delta: float, mixes_messages: bool) -> None:
        super().__init__()
        self.inter_fc0 = _linear_relu(latent_dim, latent_dim)
        self.inter_fc1 = _linear_relu(latent_dim, latent_dim)
        self.inter_fc2 = _linear_relu(latent_dim, latent_dim)
        self.inter_fc3 = _linear_relu(latent_dim, latent_dim)
        self.inter_fc4 = _linear_relu(latent_dim, latent_dim)
        self.inter_fc5 = _linear_relu(latent_dim, latent_dim)
        self.inter_fc6 = _linear_relu(latent_dim, latent_dim)
        self.inter_fc7 = _linear_relu(latent_dim, latent_dim)
        self.inter_fc8 = _linear_relu(latent_dim, latent_dim)
        self.delta, self.mixes_messages = delta, mixes_messages

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        messages = [layer(f) for layer, f in zip(self.children(), features, strict=True)]
        first = messages if self.mixes_messages else features
        mixed = []
        for j, message in enumerate(messages):
            aware = torch.zeros_like(message)
            for m, other in enumerate(messages):
                if m != j:
                    aware += (message - other).norm(dim=1, keepdim=True).tanh() * other
            mixed.append(self.delta * first[j] + (1 - self.delta) * aware)
        return mixed


class BranchFRN(nn.Module):
    """Equations 3 to 12."""

    def __init__(self, latent_dim: int, delta: float, mixes_messages: bool) -> None:
        super().__init__()
        self.intra_rm = BranchIntra(latent_dim)
        self.inter_rm = BranchInter(latent_dim, delta, mixes_messages)

    def forward(self, latents: Sequence[Tensor]) -> Tensor:
        return torch.stack(self.inter_rm(self.intra_rm(latents))).sum(0)


class BranchModel(nn.Module):
    """A backbone, as the sequence of its children, and the head a layer a branch."""

    def __init__(
        self,
        backbone: nn.Module,
        in_features: int,
        num_classes: int,
        *,
        latent_dim: int = 128,
        delta: float = 0.5,
        mixes_messages: bool,
    ) -> None:
        super().__init__()
        self.backbone = nn.Sequential(*list(backbone.children())[:-1])
        self.fdn = BranchFDN(in_features, latent_dim)
        self.frn = BranchFRN(latent_dim, delta, mixes_messages)
        self.epn = nn.Sequential(nn.Linear(latent_dim, num_classes))

    def forward(self, input: Tensor) -> Tensor:
        """Class scores of images."""
        features = self.backbone(input).flatten(1)
        logits: Tensor = self.epn(self.frn(self.fdn(features)))
        return logits
