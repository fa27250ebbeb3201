"""Train FDRL with CUDA graphs: the whole step in one, or head and losses in two.

Random images replace faces, so that `python examples/loops/graphed.py` ends in seconds. Without a
GPU, the same functions are called instead of graphs.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from fdrl_layers import FDRLHead, FDRLLoss

CLASSES, BATCH, STEPS = 7, 8, 12


def make_backbone(device: str) -> nn.Module:
    """Return a ResNet-18 without its classifier."""
    backbone: nn.Module = resnet18()
    backbone.fc = nn.Identity()
    return backbone.to(device)


class HeadAndLosses(nn.Module):
    """Head and losses as one module whose inputs and outputs are tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.head = FDRLHead(512, CLASSES, reduction="mean")
        self.criterion = FDRLLoss(CLASSES)

    def forward(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss to minimize and the logits."""
        output = self.head(features)
        return self.criterion(output, labels).total, output.logits.detach()


def capture_graph(step: Callable[[], Tensor], device: str) -> Callable[[], Tensor]:
    """Return `step` as a CUDA graph, after three training steps as warm-up."""
    if device != "cuda":
        return step
    # cuDNN, Triton and the optimizer initialize lazily, which must happen before the capture.
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()

    def replay() -> Tensor:
        graph.replay()
        return loss

    return replay


def train_whole(device: str) -> list[float]:
    """Capture the whole step, the fastest way if every batch has the same size."""
    backbone, tail = make_backbone(device), HeadAndLosses().to(device)
    parameters = [*backbone.parameters(), *tail.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-4, capturable=device == "cuda")
    # A graph reads and writes the memory that its tensors had at the capture.
    images = torch.zeros(BATCH, 3, 32, 32, device=device)
    labels = torch.zeros(BATCH, dtype=torch.int64, device=device)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, cache_enabled=False):
            loss, _ = tail(backbone(images), labels)
        loss.backward()
        optimizer.step()
        found: Tensor = loss.detach()
        return found

    def fill() -> None:
        images.copy_(torch.randn(BATCH, 3, 32, 32))
        labels.copy_(torch.randint(CLASSES, (BATCH,)))

    fill()
    run = capture_graph(step, device)
    history = []
    for _ in range(STEPS):
        fill()
        history.append(run().clone())
    return torch.stack(history).tolist()


def train_parts(device: str) -> list[float]:
    """Capture head and losses alone; the loop, the backbone and the optimizer are unchanged."""
    backbone, tail = make_backbone(device), HeadAndLosses().to(device)
    run: Any = tail
    if device == "cuda":
        features = torch.randn(BATCH, 512, device=device, requires_grad=True)
        labels = torch.arange(BATCH, device=device) % CLASSES
        run = torch.cuda.make_graphed_callables(tail, (features, labels))
        # The capture has updated the centers with the sample inputs, so reset them.
        tail.criterion.reset_parameters()
    optimizer = torch.optim.Adam([*backbone.parameters(), *tail.parameters()], lr=1e-4)
    history = []
    for _ in range(STEPS):
        images, labels = torch.randn(BATCH, 3, 32, 32), torch.randint(CLASSES, (BATCH,))
        loss, _ = run(backbone(images.to(device)), labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.detach())
    return torch.stack(history).tolist()


if __name__ == "__main__":
    where = "cuda" if torch.cuda.is_available() else "cpu"
    for train in (train_whole, train_parts):
        found = train(where)
        print(f"{train.__name__}: loss from {found[0]:.3f} to {found[-1]:.3f}")
