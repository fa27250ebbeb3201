"""Processes in a gloo group that stay up and run what a test sends them."""

import pickle
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist, multiprocessing

SIZE = 2
SECONDS = 60


class Ranks:
    """Starts on the first call, and anew after a call that a rank did not answer."""

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
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
            answers = [self._answer(rank) for rank in range(self._size)]
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
        for rank in range(self._size):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(
                target=_serve, args=(rank, self._size, meeting_point, theirs), daemon=True
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
    dist.init_process_group(
        "gloo",
        init_method=meeting_point,
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=SECONDS),
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
