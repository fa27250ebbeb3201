"""A network in the public per-branch layout: what `fdrl_layers.convert` reads is held against it.

Each branch is a layer of its own, under the names that checkpoints of this layout have. Written
from those names and from the equations.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

NUM_LATENTS = 9


class Branches(nn.Module):
    """A layer a latent, by the name that such a checkpoint has for it."""

    def __init__(self, name: str, width: int, latent_dim: int, activation: nn.Module) -> None:
        super().__init__()
        for j in range(NUM_LATENTS):
            branch = nn.Sequential(nn.Linear(width, latent_dim), activation)
            self.add_module(f"{name}_fc{j}", branch)

    def forward(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        return [layer(input) for layer, input in zip(self.children(), inputs, strict=True)]


class BranchFRN(nn.Module):
    """Equations 3, 4 and 7 to 12; `mixes_messages` departs from equation 11."""

    def __init__(self, latent_dim: int, delta: float, mixes_messages: bool) -> None:
        super().__init__()
        self.intra_rm = Branches("intra", latent_dim, latent_dim, nn.Sigmoid())
        self.inter_rm = Branches("inter", latent_dim, latent_dim, nn.ReLU())
        self.delta, self.mixes_messages = delta, mixes_messages

    def forward(self, latents: Sequence[Tensor]) -> Tensor:
        weights = [gate.norm(p=1, dim=1, keepdim=True) for gate in self.intra_rm(latents)]
        features = [weight * latent for weight, latent in zip(weights, latents, strict=True)]
        messages = self.inter_rm(features)
        first = messages if self.mixes_messages else features
        embedding = torch.zeros_like(latents[0])
        for j, message in enumerate(messages):
            aware = torch.zeros_like(message)
            for m, other in enumerate(messages):
                if m != j:
                    aware += (message - other).norm(dim=1, keepdim=True).tanh() * other
            embedding += self.delta * first[j] + (1 - self.delta) * aware
        return embedding


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
        self.fdn = Branches("fdn", in_features, latent_dim, nn.ReLU())
        self.frn = BranchFRN(latent_dim, delta, mixes_messages)
        self.epn = nn.Sequential(nn.Linear(latent_dim, num_classes))

    def forward(self, input: Tensor) -> Tensor:
        features = self.backbone(input).flatten(1)
        return self.epn(self.frn(self.fdn([features] * NUM_LATENTS)))  # type: ignore[no-any-return]
