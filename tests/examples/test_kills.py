"""A run that is killed at ten random moments ends as one that was left alone, bit for bit."""

import multiprocessing
import os
import random
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from fer.model import checkpoint
from small_runs import assert_same, read_metrics, read_outputs, run_command

ROOT = Path(__file__).resolve().parents[2]
KILLS = 10
EPOCHS = 6
# Twelve steps an epoch, and a head whose checkpoints of 30 MB take a while to write.
RUN = ["--faces", "96", "--image-size", "24", "--batch-size", "8", "--epochs", str(EPOCHS)]
RUN += ["--latent-dim", "256", "--device", "cpu"]
Start = Callable[[list[str]], tuple[BaseProcess, Path]]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Return what starts a run in a process forked from one that has imported everything."""
    path = os.pathsep.join(str(each) for each in (ROOT, ROOT / "examples", ROOT / "tests"))
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["small_runs"])
    numbers = iter(range(1000))

    def begin(arguments: list[str]) -> tuple[BaseProcess, Path]:
        output = tmp_path / f"output{next(numbers)}"
        process = context.Process(target=run_command, args=(arguments, output))
        process.start()
        return process, output

    return begin


def wait_until(true: Callable[[], bool], process: BaseProcess) -> None:
    deadline = time.monotonic() + 100
    while process.is_alive() and not true():
        assert time.monotonic() < deadline, "the run came to a halt"
        time.sleep(0.0005)


def kill(process: BaseProcess, output: Path, folder: Path, epochs: int, rest: float | None) -> str:
    """Kill a run that has kept some epochs, after a rest or else as it writes a checkpoint.

    Return what it was at: "writing", "training", or "nothing" any more.
    """

    def is_writing() -> bool:
        return any(folder.glob("*.pt.part"))

    wait_until(lambda: output.is_file() and "writing to" in output.read_text(), process)
    wait_until(lambda: len(read_metrics(folder)) >= epochs, process)
    if rest is None:
        wait_until(is_writing, process)
    else:
        time.sleep(rest)
    process.kill()
    process.join()
    if process.exitcode != -9:
        return "nothing"
    return "writing" if is_writing() else "training"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_killed_ten_times_and_resumed_equals_never_killed(tmp_path: Path, start: Start) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process, _ = start([*RUN, "--out", str(whole)])
    process.join()
    assert process.exitcode == 0
    epoch = float(checkpoint.read_json(whole / "summary.json")["seconds"]) / EPOCHS

    rng = random.Random(0)
    # Half of the kills after a time of training, half while a checkpoint is being written.
    plan = rng.sample([False, True] * (KILLS // 2), KILLS)
    found = []
    for number, while_writing in enumerate(plan):
        there = (killed / "config.json").is_file()
        process, output = start([*(["--resume"] if there else [*RUN, "--out"]), str(killed)])
        # Two in each epoch but the last.
        rest = None if while_writing else rng.uniform(0, epoch)
        found.append(kill(process, output, killed, number // 2, rest))
        assert not (killed / "summary.json").exists() or found[-1] == "nothing"
    # Two may come too late, on a machine that is busy with something else.
    assert found.count("nothing") <= 2, found
    assert found.count("writing") >= 2, found
    assert found.count("training") >= 3, found

    process, output = start(["--resume", str(killed)])
    process.join()
    assert process.exitcode == 0, output.read_text()
    assert_same(read_outputs(killed), read_outputs(whole))
