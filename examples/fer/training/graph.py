"""The training step as one CUDA graph: the host copies what it has drawn, and starts all at once.

On small images a GPU waits for Python, which takes longer to start a step's kernels than they run.
A graph holds them from the gathering of a batch to the running sums of its losses, over buffers
that stay where they are. Its first steps run as they always do, on a stream of their own, so that
everything made on demand is there; they are steps of the training like all others.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fer.options import Options
from fer.training import augment
from fer.training.batches import make_batch
from fer.training.precision import product_type
from fer.training.progress import Progress
from fer.training.ranks import Ranks

if TYPE_CHECKING:
    from fer.training.run import Run

WARM_UP = 3
"""Steps before the capture."""


def obstacle_to_graph(options: Options, ranks: Ranks, faces: torch.device) -> str | None:
    """Say what keeps a training from a graph, if anything; `faces` is where its images are."""
    if ranks.device.type != "cuda":
        return f"it needs a CUDA device, and the training is on {ranks.device.type}"
    if ranks.world > 1:
        return "several processes exchange gradients"
    if faces.type != "cuda":
        return "the faces are in the host's memory; --cache device keeps them on the GPU"
    if product_type(options, ranks.device) is torch.float16:
        return "the scaler of --amp fp16 lets the host decide whether to take a step"
    if options.accumulate > 1:
        return "--accumulate sends a batch through the backbone in parts"
    if options.compile:
        return "--compile makes graphs of its own"
    if options.balance_warmup:
        return "--balance-warmup changes the loss from step to step"
    return None


def wants_graph(options: Options, ranks: Ranks, faces: torch.device) -> bool:
    """Whether a training runs as a graph: where it can, unless the options say otherwise.

    Raises:
        ValueError: If the options ask for a graph and there can be none; it says why.
    """
    if options.graph is False:
        return False
    reason = obstacle_to_graph(options, ranks, faces)
    if options.graph and reason is not None:
        raise ValueError(f"--graph is not possible: {reason}")
    return reason is None


class GraphedStep:
    """A step of a run over buffers that stay where they are.

    Where the run is not on a GPU the same function is called in place of a graph.

    Attributes:
        sums: Of every loss, and of the accuracy, over the steps of an epoch.
    """

    def __init__(self, run: "Run") -> None:
        options, device = run.options, run.ranks.device
        self.run = run
        drawn = augment.draw(
            options.batch_size, options.image_size, torch.Generator(), options.augment
        )
        self._index = torch.zeros(options.batch_size, dtype=torch.int64, device=device)
        self._drawn = drawn.to(device)
        self._targets: Tensor | None = None
        self.sums: dict[str, Tensor] = {}
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._steps = 0

    def begin(self, progress: Progress, targets: Tensor) -> None:
        """Begin an epoch of these targets, or go on with it; the sums become the epoch's."""
        if self._targets is None:
            self._targets = targets.clone()
        self._targets.copy_(targets)
        for total in self.sums.values():
            total.zero_()
        for name, value in progress.sums.items():
            self.sums.setdefault(name, torch.zeros_like(value)).copy_(value)
        progress.sums = self.sums

    def __call__(self, index: Tensor, drawn: Tensor) -> None:
        """Learn from the faces of `index` (N,), changed as `drawn` says, and add to the sums."""
        self._index.copy_(index, non_blocking=True)
        self._drawn.copy_(drawn, non_blocking=True)
        if self._stream is None:
            self.learn()
        else:
            self._start(self._stream)
        self.run.schedule.step()

    def learn(self) -> None:
        """Do what a graph holds; nothing in it may wait for the device."""
        run = self.run
        assert self._targets is not None
        batch = make_batch(
            run.faces, self._targets, run.options, run.ranks.device, self._index, self._drawn
        )
        values = run.learn(*batch)
        for name, value in values.items():
            if name in self.sums:
                self.sums[name].add_(value)
            else:
                self.sums[name] = value.clone()

    def _start(self, stream: torch.cuda.Stream) -> None:
        if self._graph is None and self._steps < WARM_UP:
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self.learn()
            torch.cuda.current_stream().wait_stream(stream)
            self._steps += 1
            return
        if self._graph is None:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                self.learn()
            self._graph = graph
        self._graph.replay()
