r"""
Make your own relation
======================

The layers are parts. Here Inter-RM, which weighs messages by their distance (equations 8 to 10),
gives way to a relation of our own: attention between the latents. The rest stays, the losses too.
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
# To try a relation no image is needed. Each sample is the intensities of twelve action units,
# drawn for its expression, mixed into a pretended basic feature of width P = 64 with noise on
# top.

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
# A relation takes intra-aware features f (N, M, D) and gives inter-aware ones of the same shape,
# and weights (N, M, M) for those who want to look. Ours lets each latent ask the others, by
# scaled dot products, and, as the paper does "to avoid self-enhancing", not itself.


class AttentionRelation(nn.Module):
    """Let every latent attend to all others."""

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
# Decomposition and Intra-RM are the library's; equations 11 and 12 are one line each. A head that
# returns an ``FDRLOutput`` works with ``FDRLLoss`` and with every tool made for it.


class AttentionHead(nn.Module):
    """FDRL with another Inter-RM."""

    def __init__(self, in_features: int, num_classes: int, latent_dim: int = 128) -> None:
        super().__init__()
        self.decomposition = FeatureDecomposition(in_features, latent_dim)
        self.intra = IntraRelation(latent_dim, reduction="mean")
        self.inter = AttentionRelation(latent_dim)
        self.classifier = nn.Linear(latent_dim, num_classes)

    def forward(self, input: Tensor) -> FDRLOutput:
        """Return what a head makes of basic features (N, P)."""
        latents = self.decomposition(input)
        intra_aware, intra_weights = self.intra(latents)
        inter_aware, inter_weights = self.inter(intra_aware)
        embedding = (0.5 * intra_aware + 0.5 * inter_aware).sum(-2)
        return FDRLOutput(
            self.classifier(embedding), embedding, latents, intra_weights, inter_weights
        )


# %%
# Train it beside the paper's
# ---------------------------
#
# Same data, same order, same optimizer, one seed each: enough to see that both learn, not to rank
# them.


def trained(head: nn.Module) -> tuple[list[float], FDRLOutput]:
    """Train a head; return its joint loss at each step and what it makes of the test samples."""
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
    totals, outputs[name] = trained(head)
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
# The mean over the test samples. Inter-W of the paper is symmetric and does not add up to
# anything; attention has rows that add up to 1, and need not be symmetric.

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
# To go further: a relation may take the latents instead of the intra-aware features, look at
# neighboring frames of a clip through the leading axes, or hold a fixed graph of action units
# that occur together. Keep ``intra_weights`` in the output and the balance and distribution loss
# keep working; a head without them gives ones and sets ``lambda_balance=lambda_distribution=0``.
