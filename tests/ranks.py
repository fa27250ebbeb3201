"""Processes in a gloo group that stay up and run what a test sends them."""

import pickle
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed as dist, multiprocessing

from loss_cases import assert_same_state
from loss_shared import assert_close_state

SIZE = 2
SECONDS = 60

Step = dict[str, Mapping[str, Tensor]]
"""What a step of training gave: losses, gradients and the state after it."""


def part(tensor: Tensor, rank: int | None, cut: Sequence[int]) -> Tensor:
    """The part of a batch that lies on a rank; all of it in the one process that is no rank."""
    return tensor if rank is None else tensor.split(list(cut))[rank]


def check_ranks(
    found: Sequence[Sequence[Step]],
    expected: Sequence[Step],
    dtype: torch.dtype = torch.float64,
    gradient: Callable[[str, Tensor, int, int], Tensor] = lambda name, whole, number, rank: whole,
) -> None:
    """Hold each step of each rank against that of one process; states are the same on all ranks.

    `gradient` makes what a rank has of a gradient from that of the whole batch.
    """
    for rank, steps in enumerate(found):
        for number, (step, one) in enumerate(zip(steps, expected, strict=True)):
            wanted = {n: gradient(n, v, number, rank) for n, v in one["gradients"].items()}
            for kind, tensors in (one | {"gradients": wanted}).items():
                name = f"step {number}, rank {rank}, {kind}"
                assert_close_state(step[kind], tensors, dtype, name)
            assert_same_state(step["state"], found[0][number]["state"])


class Ranks:
    """Starts on the first call, and anew after a call that a rank did not answer."""

    def __init__(self, size: int = SIZE) -> None:
        self.size = size
        self._processes: list[BaseProcess] = []
        self._pipes: list[Connection] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What each rank returns from `function(rank, *arguments)`."""
        if not self._processes:
            self._start()
        # As bytes: torch would otherwise hand over the memory, which dies with its process.
        request = pickle.dumps((function, arguments))
        try:
            for pipe in self._pipes:
                pipe.send_bytes(request)
            answers = [self._answer(rank) for rank in range(self.size)]
        except BaseException:
            self.stop()
            raise
        for rank, (done, found) in enumerate(answers):
            if not done:
                raise AssertionError(f"rank {rank}: {found}")
        return [found for _, found in answers]

    def stop(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(timeout=5)
            process.kill()
            process.join()
        if self._folder:
            self._folder.cleanup()
        self._processes, self._pipes, self._folder = [], [], None

    def _start(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory()
        meeting_point = Path(self._folder.name, "ranks").as_uri()
        for rank in range(self.size):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(
                target=_serve, args=(rank, self.size, meeting_point, theirs), daemon=True
            )
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(ours)

    def _answer(self, rank: int) -> tuple[bool, Any]:
        if not self._pipes[rank].poll(SECONDS):
            raise TimeoutError(f"rank {rank} gave no answer in {SECONDS} s")
        done, found = pickle.loads(self._pipes[rank].recv_bytes())
        return done, found


def _serve(rank: int, size: int, meeting_point: str, pipe: Connection) -> None:
    torch.set_num_threads(1)
    limit = timedelta(seconds=SECONDS)
    dist.init_process_group(
        "gloo", init_method=meeting_point, rank=rank, world_size=size, timeout=limit
    )
    while True:
        try:
            function, arguments = pickle.loads(pipe.recv_bytes())
        except EOFError:
            break
        try:
            answer = True, function(rank, *arguments)
        except Exception:
            answer = False, traceback.format_exc()
        pipe.send_bytes(pickle.dumps(answer))
    dist.destroy_process_group()
