"""Train FDRL with Hugging Face Accelerate: `accelerate launch examples/loops/accelerate_loop.py`.

Needs `pip install accelerate`.
"""

import torch
from accelerate import Accelerator
from plain import CLASSES, EPOCHS, make_data, make_model
from torch.utils.data import DataLoader

from fdrl_layers import FDRLLoss


def train(folder: str, cpu: bool = False) -> list[float]:
    """Train for a few epochs with a checkpoint in `folder`; return the mean loss of each epoch."""
    accelerator = Accelerator(cpu=cpu)
    network = make_model()
    # Nothing in the loss requires a gradient, so it is not prepared. It is moved to the device and
    # registered, so that checkpoints include its centers. It sums over all processes by itself.
    criterion = FDRLLoss(CLASSES).to(accelerator.device)
    accelerator.register_for_checkpointing(criterion)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, betas=(0.5, 0.999))
    batches = DataLoader(make_data(), batch_size=8, shuffle=True, drop_last=True)
    network, optimizer, batches = accelerator.prepare(network, optimizer, batches)
    history = []
    for _ in range(EPOCHS):
        network.train()
        total = 0.0
        for faces, labels in batches:
            with accelerator.autocast():
                losses = criterion(network(faces), labels)
            optimizer.zero_grad()
            accelerator.backward(losses.total)
            accelerator.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
            total += losses.total.item()
        history.append(total / len(batches))
        accelerator.save_state(folder)
    return history


if __name__ == "__main__":
    train("runs/accelerate")
