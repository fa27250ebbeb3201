r"""
Make your own relation
======================

The layers can be combined freely. Here we replace Inter-RM, which weights messages by their
distance (equations 8 to 10), by attention between latents. The other parts and losses stay.
"""

import numpy as np
import torch
from matplotlib import pyplot as plt
from torch import Tensor, nn

from fdrl_layers import FDRLHead, FDRLLoss, FDRLOutput, FeatureDecomposition, IntraRelation
from fer.data.action_units import EXPRESSIONS, sample_units

# %%
# Data
# ----
#
# Testing a relation requires no images. Each sample consists of the intensities of twelve action
# units, drawn for its expression, which a random matrix and noise turn into a simulated basic
# feature of width P = 64.

rng = np.random.default_rng(0)
labels = torch.arange(2100) % 7
units = torch.tensor(
    [list(sample_units(rng, EXPRESSIONS[label]).values()) for label in labels], dtype=torch.float32
)
torch.manual_seed(0)
features = units @ torch.randn(12, 64) + 0.8 * torch.randn(len(units), 64)
train, test = slice(0, 1400), slice(1400, None)

# %%
# The relation
# ------------
#
# A relation takes intra-aware features f (N, M, D) and returns inter-aware features of the same
# shape and weights (N, M, M) for inspection. In ours, each latent attends to the others by scaled
# dot products, but not to itself, as in the paper, "to avoid self-enhancing".


class AttentionRelation(nn.Module):
    """Scaled dot-product attention of every latent to all others."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(latent_dim, latent_dim)
        self.key = nn.Linear(latent_dim, latent_dim)
        self.value = nn.Linear(latent_dim, latent_dim)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inter-aware features (N, M, D) and their weights (N, M, M)."""
        scores = self.query(features) @ self.key(features).mT / features.shape[-1] ** 0.5
        itself = torch.eye(features.shape[-2], dtype=torch.bool, device=features.device)
        weights = scores.masked_fill(itself, -torch.inf).softmax(-1)
        return weights @ self.value(features), weights


# %%
# The head
# --------
#
# Decomposition and Intra-RM are the library's layers; one line computes equations 11 and 12. A head
# that returns an ``FDRLOutput`` works with ``FDRLLoss`` and with every tool for it.


class AttentionHead(nn.Module):
    """FDRL with attention instead of Inter-RM."""

    def __init__(self, in_features: int, num_classes: int, latent_dim: int = 128) -> None:
        super().__init__()
        self.decomposition = FeatureDecomposition(in_features, latent_dim)
        self.intra = IntraRelation(latent_dim, reduction="mean")
        self.inter = AttentionRelation(latent_dim)
        self.classifier = nn.Linear(latent_dim, num_classes)

    def forward(self, input: Tensor) -> FDRLOutput:
        """Return the output of the head for basic features (N, P)."""
        latents = self.decomposition(input)
        intra_aware, intra_weights = self.intra(latents)
        inter_aware, inter_weights = self.inter(intra_aware)
        embedding = (0.5 * intra_aware + 0.5 * inter_aware).sum(-2)
        return FDRLOutput(
            self.classifier(embedding), embedding, latents, intra_weights, inter_weights
        )


# %%
# Compare it with the paper's
# ---------------------------
#
# Both use the same data, order and optimizer and one seed, which is enough to see that both learn
# but not to rank them.


def train_head(head: nn.Module) -> tuple[list[float], FDRLOutput]:
    """Train a head; return its joint loss at each step and its output for the test samples."""
    criterion = FDRLLoss(7, latent_dim=32)
    optimizer = torch.optim.Adam(head.parameters(), lr=2e-3, betas=(0.5, 0.999))
    totals = []
    order = torch.Generator().manual_seed(0)
    for _ in range(6):
        for chosen in torch.randperm(1400, generator=order).split(70):
            losses = criterion(head(features[train][chosen]), labels[train][chosen])
            optimizer.zero_grad()
            losses.total.backward()
            optimizer.step()
            totals.append(losses.total.item())
    head.eval()
    with torch.no_grad():
        return totals, head(features[test])


heads = {
    "distance (the paper's)": FDRLHead(64, 7, latent_dim=32, reduction="mean"),
    "attention (ours)": AttentionHead(64, 7, latent_dim=32),
}
figure, axes = plt.subplots(figsize=(6.4, 3.2))
outputs = {}
for name, head in heads.items():
    totals, outputs[name] = train_head(head)
    axes.plot(totals, label=name)
    right = (outputs[name].logits.argmax(1) == labels[test]).float().mean().item()
    count = sum(parameter.numel() for parameter in head.parameters())
    print(f"{name}: {right:.1%} of 700 test samples right, {count:,} parameters")
axes.set(xlabel="step", ylabel="joint loss", ylim=(0, None), title="Both learn")
axes.legend()
plt.show()

# %%
# Look at the weights
# -------------------
#
# The plots show means over the test samples. The paper's Inter-W is symmetric, and its rows have
# no fixed sum; the rows of attention sum to 1, and attention need not be symmetric.

figure, panels = plt.subplots(1, 2, figsize=(7.6, 3.4))
for axes, (name, output) in zip(panels, outputs.items(), strict=True):
    assert output.inter_weights is not None
    image = axes.imshow(output.inter_weights.mean(0), vmin=0, cmap="viridis")
    axes.set_xticks(range(9), [str(j + 1) for j in range(9)])
    axes.set_yticks(range(9), [str(j + 1) for j in range(9)])
    axes.set(title=name, xlabel="from latent", ylabel="to latent")
    figure.colorbar(image, ax=axes)
plt.show()

# %%
# Other relations may use the latents instead of the intra-aware features, neighboring frames of a
# clip along the leading axes, or a fixed graph of action units that occur together. The balance
# and distribution losses require ``intra_weights`` in the output; a head without them returns ones
# and is trained with ``lambda_balance=lambda_distribution=0``.
