r"""
What the latents learn
======================

The paper shows that each latent comes to represent a facial action, on faces without labels of
actions. The drawn faces have such labels, so this can be measured: does Intra-W
correlate with the action units, and does it do so beyond the expression?

.. note::
   The network here is small and trains on 630 faces of 32 x 32 pixels for seconds. It shows how to
   measure this, not what FDRL finds on real faces.
"""

import torch
from matplotlib import pyplot as plt
from torch import Tensor, nn

from fdrl_layers import FDRLHead, FDRLLoss
from fer.data.synthetic import draw_synthetic_faces

torch.manual_seed(0)

# %%
# Train
# -----
#
# The backbone has three convolutions, followed by the head. The losses have the paper's weights,
# and Intra-W is the mean of its gates.

database = draw_synthetic_faces(train=630, test=280, size=32)
train, test = database.splits["train"], database.splits["test"]


def scale(images: Tensor) -> Tensor:
    """Return pixels in [-1, 1]."""
    return images.float() / 127.5 - 1


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Return a convolution, with batch normalization and a ReLU, that halves the map."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


backbone = nn.Sequential(block(3, 16), block(16, 32), block(32, 64), nn.Flatten(), nn.Dropout(0.3))
model = nn.Sequential(backbone, FDRLHead(64 * 16, 7, latent_dim=32, reduction="mean"))
criterion = FDRLLoss(7, latent_dim=32)
epochs, size = 14, 45
optimizer = torch.optim.Adam(model.parameters(), betas=(0.5, 0.999))
schedule = torch.optim.lr_scheduler.OneCycleLR(
    optimizer, 3e-3, total_steps=epochs * len(train) // size + 1, cycle_momentum=False
)
images = scale(train.images)
for _ in range(epochs):
    for chosen in torch.randperm(len(train)).split(size):
        mirrored = torch.rand(len(chosen), 1, 1, 1) < 0.5
        batch = torch.where(mirrored, images[chosen].flip(-1), images[chosen])
        optimizer.zero_grad()
        criterion(model(batch), train.labels[chosen]).total.backward()
        optimizer.step()
        schedule.step()

model.eval()
with torch.no_grad():
    output = model(scale(test.images))
right = (output.logits.argmax(1) == test.labels).float().mean().item()
print(f"accuracy on {len(test)} faces not trained on: {right:.0%}; by guessing: {1 / 7:.0%}")

# %%
# Intra-W against action units
# ----------------------------
#
# The upper panel shows the correlation of each latent's Intra-W with each unit's intensity over the
# test faces. A latent that only encodes the expression also correlates with the units of the
# expression. In the lower panel, the mean of each expression is therefore first subtracted from
# both; what remains shows whether the latent encodes the action itself.

assert test.units is not None
intra, units = output.intra_weights, test.units


def subtract_class_means(values: Tensor) -> Tensor:
    """Subtract the mean of each expression."""
    means = torch.stack([values[test.labels == k].mean(0) for k in range(7)])
    return torch.sub(values, means[test.labels])


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Return Pearson's correlation of each column of one with each column of the other."""
    first, second = first - first.mean(0), second - second.mean(0)
    norms = first.norm(dim=0)[:, None] * second.norm(dim=0)
    return torch.div(first.T @ second, norms.clamp_min(1e-12))


def chance_level(first: Tensor, second: Tensor) -> float:
    """Return the 95 % quantile of the largest absolute correlation over shuffles of the faces."""
    largest = [
        correlation(first[torch.randperm(len(first))], second).abs().max() for _ in range(200)
    ]
    return torch.stack(largest).quantile(0.95).item()


figure, panels = plt.subplots(2, 1, figsize=(7.5, 6.4), sharex=True)
for axes, title, pair in (
    (panels[0], "over all faces", (intra, units)),
    (panels[1], "within expressions", (subtract_class_means(intra), subtract_class_means(units))),
):
    found, chance = correlation(*pair), chance_level(*pair)
    axes.imshow(found, vmin=-0.6, vmax=0.6, cmap="RdBu_r", aspect="auto")
    clear = (found.abs() > chance).nonzero()
    axes.scatter(clear[:, 1], clear[:, 0], s=14, color="black", gid="fixed")
    axes.set_title(f"{title}; a dot: above {chance:.2f}, which chance alone rarely reaches")
    axes.set_yticks(range(9), [str(j + 1) for j in range(9)])
    axes.set_ylabel("latent")
    print(f"{title}: {len(clear)} of {found.numel()} correlations are above {chance:.2f}")
names = [name.replace(" ", "\n", 1) for name in database.units]
panels[1].set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
figure.colorbar(panels[0].images[0], ax=panels, label="correlation")
plt.show()

# %%
# The weights depend on actions through the expression: after its mean is subtracted, few dots
# remain, or none. This is expected after seconds of training with losses that use expressions
# and not actions, and with a distribution loss that pulls the weights of faces of one expression
# together. A dot that remains on real faces would be a finding.
#
# Faces that a latent weighs most
# -------------------------------
#
# The paper's figure 3 relies on a viewer. Here are the eight test faces with the highest Intra-W
# for each of the four latents that correlate most strongly with a unit, titled with that unit.

found = correlation(intra, units)
closest = found.abs().max(1).values.topk(4).indices
figure, rows = plt.subplots(4, 8, figsize=(8, 4.8))
for row, latent in zip(rows, closest.tolist(), strict=True):
    unit = int(found[latent].abs().argmax())
    sign = "with" if found[latent, unit] > 0 else "against"
    for axes, face in zip(row, intra[:, latent].topk(8).indices.tolist(), strict=True):
        axes.imshow(test.images[face].permute(1, 2, 0))
        axes.axis("off")
    title = f"latent {latent + 1}: {sign} {database.units[unit]}"
    row[0].set_title(title, loc="left", fontsize=9).set_in_layout(False)
plt.show()

# %%
# It is easy to claim that a group "shows one action" and hard to check this by eye. Measure it
# instead, with known units as above, or with annotators who do not know which latent they see. On
# real faces, train longer, from a backbone pretrained on faces, and with several seeds: the order
# of the latents is arbitrary and differs between seeds.
