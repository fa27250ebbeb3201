"""Run the training step as one CUDA graph, for which the host only copies random numbers.

On small images, Python takes longer to launch a step's kernels than the GPU takes to run them.
A graph contains all of them, from the gathering of a batch to the running sums of its losses, and
uses static buffers. The first steps run without a graph on a separate stream, so that everything
that is created lazily exists; they are ordinary steps of the training.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fer.options import Options
from fer.training import augment
from fer.training.batches import make_batch
from fer.training.precision import autocast_dtype
from fer.training.progress import Progress
from fer.training.ranks import Ranks

if TYPE_CHECKING:
    from fer.training.run import Run

WARM_UP = 3
"""Steps before the capture."""


def find_graph_obstacle(options: Options, ranks: Ranks, faces: torch.device) -> str | None:
    """Return why a training cannot use a graph, or None; `faces` is the device of its images."""
    if ranks.device.type != "cuda":
        return f"it needs a CUDA device, and the training is on {ranks.device.type}"
    if ranks.world_size > 1:
        return "several processes exchange gradients"
    if faces.type != "cuda":
        return "the faces are in the host's memory; --cache device keeps them on the GPU"
    if autocast_dtype(options, ranks.device) is torch.float16:
        return "the scaler of --amp fp16 lets the host decide whether to take a step"
    if options.accumulate > 1:
        return "--accumulate sends a batch through the backbone in parts"
    if options.compile:
        return "--compile makes graphs of its own"
    if options.balance_warmup:
        return "--balance-warmup changes the loss from step to step"
    return None


def uses_graph(options: Options, ranks: Ranks, faces: torch.device) -> bool:
    """Return whether a training runs as a graph: if possible, unless the options disable it.

    Raises:
        ValueError: If the options require a graph that is not possible, with the reason.
    """
    if options.graph is False:
        return False
    reason = find_graph_obstacle(options, ranks, faces)
    if options.graph and reason is not None:
        raise ValueError(f"--graph is not possible: {reason}")
    return reason is None


class GraphedStep:
    """A step of a run with static buffers.

    If the run is not on a GPU, the same function is called instead of a graph.

    Attributes:
        sums: Sums of every loss and of the accuracy over the steps of an epoch.
    """

    def __init__(self, run: "Run") -> None:
        options, device = run.options, run.ranks.device
        self.run = run
        drawn = augment.draw_augmentations(
            options.batch_size, options.image_size, torch.Generator(), options.augment
        )
        self._index = torch.zeros(options.batch_size, dtype=torch.int64, device=device)
        self._drawn = drawn.to(device)
        self._targets: Tensor | None = None
        self.sums: dict[str, Tensor] = {}
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._steps = 0

    def start_epoch(self, progress: Progress, targets: Tensor) -> None:
        """Start or resume an epoch with these targets; `progress` shares the sums from now on."""
        if self._targets is None:
            self._targets = targets.clone()
        self._targets.copy_(targets)
        for total in self.sums.values():
            total.zero_()
        for name, value in progress.sums.items():
            self.sums.setdefault(name, torch.zeros_like(value)).copy_(value)
        progress.sums = self.sums

    def __call__(self, index: Tensor, drawn: Tensor) -> None:
        """Train on the faces `index` (N,), augmented by `drawn`, and update the sums."""
        self._index.copy_(index, non_blocking=True)
        self._drawn.copy_(drawn, non_blocking=True)
        if self._stream is None:
            self.run_captured()
        else:
            self._run_or_capture(self._stream)
        self.run.schedule.step()

    def run_captured(self) -> None:
        """Run the work that the graph captures; it must not wait for the device."""
        run = self.run
        assert self._targets is not None
        batch = make_batch(
            run.faces, self._targets, run.options, run.ranks.device, self._index, self._drawn
        )
        values = run.update_weights(*batch)
        for name, value in values.items():
            if name in self.sums:
                self.sums[name].add_(value)
            else:
                self.sums[name] = value.clone()

    def _run_or_capture(self, stream: torch.cuda.Stream) -> None:
        if self._graph is None and self._steps < WARM_UP:
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self.run_captured()
            torch.cuda.current_stream().wait_stream(stream)
            self._steps += 1
            return
        if self._graph is None:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                self.run_captured()
            self._graph = graph
        self._graph.replay()
