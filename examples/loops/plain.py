"""Train FDRL in a plain loop with mixed precision, gradient clipping and an average of weights.

Random images replace faces, so that `python examples/loops/plain.py` ends in seconds.
"""

from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

from fdrl_layers import FDRLHead, FDRLLoss

CLASSES, EPOCHS = 7, 2


def make_model() -> nn.Module:
    """Return a ResNet-18 with the head instead of its classifier."""
    backbone = resnet18()
    backbone.fc = nn.Identity()
    return nn.Sequential(backbone, FDRLHead(512, CLASSES, reduction="mean"))


def make_data() -> TensorDataset:
    """Return random images of 32 x 32 pixels with random labels."""
    return TensorDataset(torch.randn(16, 3, 32, 32), torch.randint(CLASSES, (16,)))


def train(folder: Path, device: str = "cpu") -> list[float]:
    """Train for a few epochs with a checkpoint in `folder`; return the mean loss of each epoch."""
    network = make_model().to(device)
    # The centers in the loss are buffers that the forward pass updates, so no optimizer gets them.
    criterion = FDRLLoss(CLASSES).to(device)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.999), use_buffers=True)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, betas=(0.5, 0.999))
    # With float16 on a GPU, the scaler prevents underflow of gradients; elsewhere it is disabled.
    scaler = torch.amp.GradScaler(device, enabled=device == "cuda")
    history = []
    for _ in range(EPOCHS):
        network.train()
        criterion.train()
        total = torch.zeros((), device=device)
        batches = DataLoader(make_data(), batch_size=8, shuffle=True, drop_last=True)
        for faces, labels in batches:
            with torch.autocast(device, torch.float16, enabled=device == "cuda"):
                losses = criterion(network(faces.to(device)), labels.to(device))
            optimizer.zero_grad()
            scaler.scale(losses.total).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            scaler.step(optimizer)
            scaler.update()
            average.update_parameters(network)
            total += losses.total.detach()
        history.append(total.item() / len(batches))
    # Everything that a resumed run requires, including the centers of the loss.
    state = {
        "model": network.state_dict(),
        "average": average.state_dict(),
        "criterion": criterion.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    torch.save(state, folder / "last.pt")
    return history


if __name__ == "__main__":
    runs = Path("runs/plain")
    runs.mkdir(parents=True, exist_ok=True)
    found = train(runs, "cuda" if torch.cuda.is_available() else "cpu")
    print("loss of each epoch:", ", ".join(f"{loss:.3f}" for loss in found))
