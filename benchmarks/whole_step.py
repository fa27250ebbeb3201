"""Measure what a head adds to a training step of a whole network.

    python -m benchmarks whole-step [--device cuda] [--dtype bfloat16] [--graph] [--rounds 31]

Times a ResNet-18 at 224 x 224 in batches of 64 with a linear layer and cross-entropy, with the loop
over branches, and with this package's head. With --graph each step is one CUDA graph. Writes
benchmarks/results/MACHINE/whole-step-DTYPE.json, or whole-step-graph-DTYPE.json.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from benchmarks.machine import describe
from benchmarks.registry import VERSIONS, Sizes, capture_graph, make_shared_head
from benchmarks.schema import RESULTS, WholeStep, write
from benchmarks.timing import measure, percentiles


class Linear(nn.Module):
    """The paper's baseline: one linear layer and cross-entropy."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.fc = nn.Linear(sizes.P, sizes.K)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss of basic features."""
        return nn.functional.cross_entropy(self.fc(input), target)


class WithLosses(nn.Module):
    """A head and its losses."""

    def __init__(self, head: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.head, self.loss = head, loss

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss of basic features."""
        total: Tensor = self.loss(self.head(input), target).total
        return total


def make_step(tail: nn.Module, sizes: Sizes, options: argparse.Namespace) -> Callable[[], object]:
    """Return a training step of the backbone with a head and its losses, without an optimizer.

    With `options.graph` the step is captured in a CUDA graph.
    """
    device, dtype = options.device, getattr(torch, options.dtype)
    torch.manual_seed(0)
    backbone: Any = resnet18()
    backbone.fc = nn.Identity()
    backbone, tail = backbone.to(device), tail.to(device)
    images = torch.randn(sizes.N, 3, options.image_size, options.image_size, device=device)
    target = torch.arange(sizes.N, device=device) % sizes.K
    if device == "cuda":
        backbone = backbone.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    parameters = [*backbone.parameters(), *tail.parameters()]

    def run() -> None:
        for parameter in parameters:
            parameter.grad = None
        cached = not options.graph
        lowered = dtype != torch.float32
        with torch.autocast(device, dtype, enabled=lowered, cache_enabled=cached):
            loss = tail(backbone(images), target)
        loss.backward()

    return capture_graph(run) if options.graph else run


def main(argv: list[str] | None = None) -> None:
    """Measure the three heads in paired rounds."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks whole-step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--graph", action="store_true", help="capture each step in a CUDA graph")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="folder for the results")
    options = parser.parse_args(argv)
    if options.graph and options.device != "cuda":
        parser.error("--graph needs --device cuda")
    torch.set_num_threads(options.threads)
    sizes = Sizes(N=options.batch)
    built = {version.name: version.build for version in VERSIONS}
    ours = "triton" if options.device == "cuda" else "ours"
    tails = {
        "linear": Linear(sizes),
        "loop": WithLosses(*built["loop"](make_shared_head(sizes), sizes)),
        "ours": WithLosses(*built[ours](make_shared_head(sizes), sizes)),
    }
    steps = {name: make_step(tail, sizes, options) for name, tail in tails.items()}
    seconds = measure(steps, options.rounds, options.device)
    added = {
        name: tuple(
            percentiles([100 * (a / b - 1) for a, b in zip(taken, seconds["linear"], strict=True)])
        )
        for name, taken in seconds.items()
        if name != "linear"
    }
    results = WholeStep(
        backbone="resnet18",
        image_size=options.image_size,
        batch=options.batch,
        dtype=options.dtype,
        rounds=options.rounds,
        graph=options.graph,
        machine=describe(options.device),
        seconds={name: tuple(percentiles(taken)) for name, taken in seconds.items()},
        added=added,
    )
    for name, value in added.items():
        print(f"{name} adds {value[1]:.2f} % to {results.seconds['linear'][1] * 1e3:.1f} ms")
    folder = options.out or RESULTS / results.machine.slug()
    name = "whole-step-graph" if options.graph else "whole-step"
    write(folder / f"{name}-{options.dtype}.json", results)
