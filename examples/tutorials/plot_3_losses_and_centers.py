r"""
Losses and centers in pictures
==============================

This tutorial shows the centers of equations 2 and 5 on points in a plane, the effects of the
balance and the distribution loss on Intra-W, and why gates must not start at one half with the
printed sum of equation 4.
"""

from typing import Literal

import torch
from matplotlib import pyplot as plt
from torch import Tensor, nn

from fdrl_layers import CompactnessLoss, FDRLHead
from fdrl_layers.functional import balance_loss, distribution_loss

torch.manual_seed(0)

# %%
# How a center is updated
# -----------------------
#
# A center starts at the mean of the first training batch. Here the data then moves, as features
# do while a network learns, from the bottom left to the top right, in 12 batches of 8 points. The
# three rules follow it at different speeds. With ``"alpha"`` and ``"ema"`` the forward pass updates
# the center. With ``"gradient"`` the center is a parameter and requires an optimizer, here plain
# SGD.

steps, batch = 12, 8
path = torch.linspace(0, 1, steps)[:, None] * torch.tensor([4.0, 2.5])
batches = path[:, None] + 0.35 * torch.randn(steps, batch, 2)


def track_center(
    rule: Literal["alpha", "ema", "gradient"], rate: float, learning_rate: float | None = None
) -> Tensor:
    """Return the position of the center of a compactness loss after each batch."""
    loss = CompactnessLoss(2, num_latents=1, center_update=rule, center_rate=rate)
    sgd = torch.optim.SGD(loss.parameters(), learning_rate) if learning_rate else None
    places = []
    for points in batches:
        value = loss(points[:, None])  # latents (N, 1, 2)
        if sgd is not None:
            sgd.zero_grad()
            value.backward()
            sgd.step()
        places.append(loss.centers.value.detach()[0].clone())
    return torch.stack(places)


trails = {
    '"alpha", rate 0.5': track_center("alpha", 0.5),
    '"ema", rate 0.2': track_center("ema", 0.2),
    '"gradient", SGD 0.05': track_center("gradient", 0.5, 0.05),
    '"gradient", no optimizer': track_center("gradient", 0.5),
}
figure, axes = plt.subplots(figsize=(6.4, 4))
points = batches.reshape(-1, 2)
axes.scatter(points[:, 0], points[:, 1], s=10, color="0.6", label="points of 12 batches")
for name, places in trails.items():
    axes.plot(*places.T, marker="o", markersize=4, label=name)
axes.set_title("One center, after each batch")
axes.legend(fontsize="small")
axes.set_aspect("equal")
plt.show()

# %%
# Wen et al.'s rule divides by 1 + n: with a batch of 8 and a rate of 0.5, the center moves 4 / 9
# of the way to the batch's mean. A moving average with rate r is equivalent to SGD with a rate of
# r / 2; here r is 0.2, and 0.1 for SGD. The last trail shows the most common bug of center losses:
# parameters that no optimizer updates stay where they start. The default here is therefore a rule
# that does not need an optimizer.
#
# The effect of the compactness loss
# ----------------------------------
#
# Equation 2 pulls every latent to a center that all samples share, regardless of their class.
# Alone, it would make all samples equal; the cross-entropy counteracts it. Below, points of three
# classes move freely for 12 steps. They minimize the compactness loss, with increasing weights, and
# the cross-entropy of a fixed linear classifier.

corners = torch.tensor([[0.0, 1.6], [-1.4, -0.8], [1.4, -0.8]])
classes = torch.arange(3).repeat_interleave(40)
start = corners[classes] + 0.55 * torch.randn(120, 2)


def optimize_points(weight: float) -> Tensor:
    """Return the points after 12 SGD steps on cross-entropy plus weighted compactness loss."""
    points = nn.Parameter(start.clone())
    loss = CompactnessLoss(2, num_latents=1)
    sgd = torch.optim.SGD([points], 6.0)
    for _ in range(12):
        sgd.zero_grad()
        classification = nn.functional.cross_entropy(points @ corners.T, classes)
        (classification + weight * loss(points[:, None])).backward()
        sgd.step()
    return points.detach()


figure, panels = plt.subplots(1, 3, figsize=(8, 3), sharex=True, sharey=True)
for axes, weight in zip(panels, (0.0, 0.05, 0.5), strict=True):
    for points in optimize_points(weight).split(40):
        axes.scatter(points[:, 0], points[:, 1], s=8)
    axes.set_title(f"weight {weight:g}")
    axes.set_aspect("equal")
plt.show()

# %%
# Without it, the classes keep moving apart; with too large a weight, the classes merge. The
# paper's weight, 0.0001, is small because the loss sums over 9 latents of width
# 128.
#
# Balance and distribution
# ------------------------
#
# Intra-W is the weight of each latent for each sample. The balance loss prevents that one latent
# dominates the mean over a batch. The distribution loss pulls the weights of samples of one
# class together. Here the Intra-W of 60 samples of three classes is optimized directly, with each
# loss and with both.

target = torch.arange(3).repeat_interleave(20)
favorite = nn.functional.one_hot(target, 9).float() * 0.3
raw = (0.05 + favorite + 0.12 * torch.rand(60, 9)).clamp(0, 1)
raw[:, 4] += 0.45  # the fifth latent dominates in every sample


def optimize_weights(balance: float, distribution: float) -> Tensor:
    """Return Intra-W after 200 SGD steps on the two losses."""
    gates = nn.Parameter(raw.logit())
    sgd = torch.optim.SGD([gates], 2.0)
    for _ in range(200):
        sgd.zero_grad()
        weights = gates.sigmoid()
        centers = torch.stack([weights[target == k].mean(0) for k in range(3)]).detach()
        total = balance * balance_loss(weights) + distribution * distribution_loss(
            weights, target, centers
        )
        total.backward()
        sgd.step()
    return gates.detach().sigmoid()


cases = {
    "as it was": raw,
    "balance": optimize_weights(1.0, 0.0),
    "distribution": optimize_weights(0.0, 30.0),
    "both": optimize_weights(1.0, 30.0),
}
figure, panels = plt.subplots(1, 4, figsize=(8, 3.6), sharey=True)
for axes, (name, weights) in zip(panels, cases.items(), strict=True):
    axes.imshow(weights, aspect="auto", vmin=0, vmax=0.7, cmap="viridis")
    axes.set_title(name)
    axes.set_xticks(range(0, 9, 2), [str(j + 1) for j in range(0, 9, 2)])
    axes.set_xlabel("latent")
panels[0].set_ylabel("sample, by class")
figure.colorbar(panels[0].images[0], ax=panels, label="Intra-W")
plt.show()

# %%
# The balance loss moves the mean of every column to 1 / 9 regardless of single samples: the fifth
# latent no longer dominates, and the noise within a class remains. The distribution loss makes the
# rows of a class equal, and the fifth latent still dominates. The paper uses both.
#
# Where the gates start
# ---------------------
#
# Equation 4 as printed sums 128 gates. If they started near one half, as with PyTorch's default
# initialization, Intra-W would be about 64. It scales the latents, so the messages of Inter-RM
# would be far apart, and tanh of their distance would be 1. By default, Intra-W starts at 1 / 9.

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))
features = nn.functional.normalize(torch.randn(256, 512), dim=1) * 512**0.5 / 4
distance = torch.linspace(0, 12, 200)
left.plot(distance, distance.tanh(), color="black")
for gate_init in ("linear", "uniform"):
    head = FDRLHead(512, 7, gate_init=gate_init)
    with torch.no_grad():
        output = head(features)
    off = ~torch.eye(9, dtype=torch.bool)
    assert output.inter_weights is not None
    inter = output.inter_weights[:, off].flatten()
    right.hist(inter.numpy(), bins=50, range=(0, 1.001), density=True, label=f'"{gate_init}"')
    start_loss = balance_loss(output.intra_weights).item()
    print(
        f"{gate_init:>7}: mean Intra-W {output.intra_weights.mean().item():6.2f}, "
        f"balance loss {start_loss:7.2f}, Inter-W at 1: {(inter > 0.999).float().mean():.0%}"
    )
left.set(xlabel="distance of two messages", title="tanh, equation 9")
right.set(xlabel="Inter-W of a new head", title="where a new head starts", yticks=[])
right.legend()
plt.show()

# %%
# Where tanh is flat, no gradient reaches the messages: Inter-RM cannot learn until the balance
# loss has reduced Intra-W by a factor of a hundred. "uniform" is the default.
# :doc:`/concepts/intra_relation` has the numbers and the measurements on real faces.
