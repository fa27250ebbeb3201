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
from small_runs import assert_same, left, run_command

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


def wait_until(process: BaseProcess, true: Callable[..., bool], *arguments: object) -> None:
    """Wait for something, or for the end of the process."""
    deadline = time.monotonic() + 100
    while process.is_alive() and not true(*arguments):
        assert time.monotonic() < deadline, "the run came to a halt"
        time.sleep(0.0005)


def says_that_it_begins(output: Path) -> bool:
    return output.is_file() and "writing to" in output.read_text()


def has_kept(folder: Path, epochs: int) -> bool:
    path = folder / "metrics.csv"
    return epochs == 0 or (path.is_file() and path.read_text().count("\n") > epochs)


def is_writing_a_checkpoint(folder: Path) -> bool:
    return any(folder.glob("*.pt.part"))


def kill(process: BaseProcess, folder: Path) -> str:
    """Kill a run, and say what it was at: "writing", "training", or "nothing" any more."""
    process.kill()
    process.join()
    if process.exitcode != -9:
        return "nothing"
    return "writing" if is_writing_a_checkpoint(folder) else "training"


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
        wait_until(process, says_that_it_begins, output)
        # Two in each epoch but the last.
        wait_until(process, has_kept, killed, number // 2)
        if while_writing:
            wait_until(process, is_writing_a_checkpoint, killed)
        else:
            time.sleep(rng.uniform(0, epoch))
        found.append(kill(process, killed))
        assert not (killed / "summary.json").exists() or found[-1] == "nothing"
    # Two may come too late, on a machine that is busy with something else.
    assert found.count("nothing") <= 2, found
    assert found.count("writing") >= 2, found
    assert found.count("training") >= 3, found

    process, output = start(["--resume", str(killed)])
    process.join()
    assert process.exitcode == 0, output.read_text()
    assert_same(left(killed), left(whole))
