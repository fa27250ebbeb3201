r"""
Put the head on a backbone
==========================

We train a ResNet-18 with an FDRL head on drawn faces for a few steps. Then we apply the head to
tokens, and similar heads to feature maps of several scales.
"""

import torch
from matplotlib import pyplot as plt
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.feature_extraction import create_feature_extractor

from fdrl_layers import FDRLHead, FDRLLoss
from fer.data.synthetic import draw_synthetic_faces

torch.manual_seed(0)

# %%
# Faces
# -----
#
# Synthetic faces with the seven expressions of RAF-DB, in the order of RAF-DB.

database = draw_synthetic_faces(train=105, test=0, size=40)
faces = database.splits["train"]
images = faces.images.float() / 127.5 - 1  # [-1, 1]
labels = faces.labels

figure, panels = plt.subplots(1, 7, figsize=(8, 1.6))
for axes, image, name in zip(panels, faces.images, database.classes, strict=False):
    axes.imshow(image.permute(1, 2, 0))
    axes.set_title(name, fontsize=8)
    axes.axis("off")
plt.show()

# %%
# A backbone and a head
# ---------------------
#
# Without its classifier, the backbone returns the basic feature (N, P), which is the input of the
# head. Here, Intra-W is a mean of gates instead of the printed sum: see
# :doc:`/concepts/intra_relation`.

backbone = resnet18()
backbone.fc = nn.Identity()
head = FDRLHead(in_features=512, num_classes=7, reduction="mean")
criterion = FDRLLoss(num_classes=7)
model = nn.Sequential(backbone, head)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.5, 0.999))

history: dict[str, list[float]] = {name: [] for name in ("classification", "balance")}
for _ in range(3):
    for chosen in torch.randperm(len(images)).split(15):
        losses = criterion(model(images[chosen]), labels[chosen])
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        for name, values in history.items():
            values.append(getattr(losses, name).item())

figure, axes = plt.subplots(figsize=(6.4, 3))
for name, values in history.items():
    axes.plot(values, label=name)
axes.set(xlabel="step", ylabel="loss", ylim=(0, None), title="Two of the four terms")
axes.set_xticks(range(0, 21, 5))
axes.legend()
plt.show()

# %%
# The balance loss starts at 9 / 2 - 1 = 3.5, as it must with the mean, and falls first.
# Twenty-one steps are enough to see the cross-entropy change, but not to learn faces.
#
# On tokens
# ---------
#
# The head supports any leading axes. A transformer returns tokens (N, T, P); the places of a
# feature map are tokens too. Here the last map of the ResNet becomes (N, 4, P): each place is
# decomposed separately and has its own Intra-W. ``FDRLLoss`` requires one batch axis: flatten the
# axes and repeat the labels, or pool first.

maps = create_feature_extractor(
    resnet18(), {"layer2": "layer2", "layer3": "layer3", "layer4": "layer4"}
)
tokens = maps(images[:15])["layer4"].flatten(2).transpose(1, 2)  # (N, C, H, W) -> (N, T, P)
output = head(tokens)
print("tokens", tuple(tokens.shape), "logits", tuple(output.logits.shape))
print("latents", tuple(output.latents.shape), "Intra-W", tuple(output.intra_weights.shape))

joined = head(tokens.flatten(0, 1))
losses = criterion(joined, labels[:15].repeat_interleave(tokens.shape[1]))
print("joint loss over all tokens", round(losses.total.item(), 2))

# %%
# On maps of several scales
# -------------------------
#
# Maps of different widths require separate heads. The latents and embeddings of all heads then
# have the same width, so the embeddings can be pooled and added. One classifier uses the sum, so
# the heads have none: ``num_classes=0``.


class MultiScale(nn.Module):
    """FDRL at every place of three maps, averaged over places and summed over scales."""

    def __init__(self) -> None:
        super().__init__()
        widths = {"layer2": 128, "layer3": 256, "layer4": 512}
        self.maps = maps
        self.heads = nn.ModuleDict(
            {name: FDRLHead(width, 0, reduction="mean") for name, width in widths.items()}
        )
        self.classifier = nn.Linear(128, 7)

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return logits (N, 7) and Intra-W (N, H, W, 9) of each scale."""
        found = {
            name: self.heads[name](feature.permute(0, 2, 3, 1))  # (N, H, W, P)
            for name, feature in self.maps(images).items()
        }
        embeddings = [each.embedding.mean((1, 2)) for each in found.values()]
        weights = {name: each.intra_weights for name, each in found.items()}
        return self.classifier(torch.stack(embeddings).sum(0)), weights


scales = MultiScale()
optimizer = torch.optim.Adam(scales.parameters(), lr=1e-3, betas=(0.5, 0.999))
first = last = 0.0
for step in range(8):
    chosen = torch.randperm(len(images))[:15]
    loss = nn.functional.cross_entropy(scales(images[chosen])[0], labels[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    first, last = (loss.item() if step == 0 else first), loss.item()
print(f"cross-entropy {first:.2f}, after 8 steps {last:.2f}")

# %%
# Intra-W is now a map too: the weight of a latent at each place of the face.

scales.eval()
with torch.no_grad():
    _, weights = scales(images[:1])
figure, panels = plt.subplots(1, 4, figsize=(8, 2.4))
panels[0].imshow(faces.images[0].permute(1, 2, 0))
panels[0].set_title("face")
for axes, (name, values) in zip(panels[1:], weights.items(), strict=True):
    axes.imshow(values[0, :, :, 0], cmap="viridis")
    axes.set_title(f"{name}, {values.shape[1]} x {values.shape[2]}")
for axes in panels:
    axes.axis("off")
figure.suptitle("Intra-W of the first latent")
plt.show()
