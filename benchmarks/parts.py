"""Run commands one after another, each with its own time limit, and print a table of them."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

ROOT = Path(__file__).resolve().parents[1]
GRACE = 4.0
"""Seconds of a part's time limit that it has to exit after an interrupt."""
TAIL = 15
"""Number of lines of a failed part's output that are printed."""


@dataclass(frozen=True)
class Part:
    """A command with a time limit.

    Attributes:
        name: Name that selects the part; "a" also selects "a-b".
        command: Program and arguments.
        seconds: Time limit.
        figure: Regular expression of the figure to report from its output; the last match counts.
        environment: Variables to set in addition to the existing ones.
        obstacle: Function that returns what is missing, or None.
    """

    name: str
    command: Sequence[str]
    seconds: float
    figure: str
    environment: Mapping[str, str] = field(default_factory=dict)
    obstacle: Callable[[], str | None] = lambda: None


@dataclass(frozen=True)
class Outcome:
    """The outcome of a part.

    Attributes:
        part: Its name.
        status: "passed", or the reason why it did not pass or run.
        seconds: Its running time.
        figure: The figure from its output.
        failed: Whether it ran and did not pass.
    """

    part: str
    status: str
    seconds: float = 0.0
    figure: str = ""
    failed: bool = False


def select_parts(parts: Sequence[Part], only: str | None) -> list[str]:
    """Return the names of the parts that `only` selects, such as "tests,operators".

    Raises:
        ValueError: if a name selects no part.
    """
    if only is None:
        return [part.name for part in parts]
    found: list[str] = []
    for wanted in filter(None, only.split(",")):
        names = [p.name for p in parts if p.name == wanted or p.name.startswith(f"{wanted}-")]
        if not names:
            raise ValueError(f"there is no part {wanted}; there are {', '.join(map(_name, parts))}")
        found += names
    return found


def run_all(parts: Sequence[Part], selected: Sequence[str], log: Path) -> list[Outcome]:
    """Run the requested parts in order, also after failures, and write all their output to `log`.

    After an interrupt from the keyboard or a SIGTERM, the remaining parts are reported as stopped.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    stopped = False
    with log.open("wb") as file, _interrupted_by_sigterm():
        for part in parts:
            if part.name not in selected:
                outcome = Outcome(part.name, "not run: not asked for")
            elif stopped:
                outcome = Outcome(part.name, "not run: stopped")
            elif (obstacle := part.obstacle()) is not None:
                outcome = Outcome(part.name, f"not run: {obstacle}")
            else:
                print(f"{part.name}: at most {part.seconds:.0f} s", flush=True)
                outcome = run(part, file, log)
                stopped = outcome.status == STOPPED
            outcomes.append(outcome)
    return outcomes


STOPPED = "stopped"


def run(part: Part, file: BinaryIO, log: Path) -> Outcome:
    """Run a part and terminate all its processes at its time limit."""
    file.write(f"=== {part.name}: {' '.join(part.command)}\n".encode())
    file.flush()
    before = file.tell()
    began = time.perf_counter()
    process = subprocess.Popen(
        part.command,
        cwd=ROOT,
        env={**os.environ, **_python_path(), "PYTHONUNBUFFERED": "1", **part.environment},
        stdin=subprocess.DEVNULL,
        stdout=file,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_restore_sigint,
    )
    try:
        exit_status = process.wait(max(0.0, part.seconds - GRACE))
        status = "passed" if exit_status == 0 else f"failed: exit status {exit_status}"
    except subprocess.TimeoutExpired:
        status = f"time limit of {part.seconds:.0f} s"
    except KeyboardInterrupt:
        status = STOPPED
    _terminate(process)
    seconds = time.perf_counter() - began
    with log.open("rb") as read:
        read.seek(before)
        output = read.read().decode(errors="replace")
    file.seek(0, os.SEEK_END)
    failed = status != "passed"
    if failed:
        print("\n".join(f"  {line}" for line in output.splitlines()[-TAIL:]), flush=True)
    found = re.findall(part.figure, output, re.MULTILINE)
    figure = " ".join(found[-1].split()) if found else ""
    return Outcome(part.name, status, seconds, figure, failed)


def _restore_sigint() -> None:
    """Restore the default action of SIGINT, which background jobs of a shell ignore."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _terminate(process: subprocess.Popen[bytes]) -> None:
    """Interrupt a process, so that pytest prints its summary, and then kill its whole group."""
    if process.poll() is None:
        _signal(process, signal.SIGINT)
        try:
            process.wait(GRACE)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            _signal(process, signal.SIGKILL)
    # Remaining processes of its group would slow the next part down.
    _signal(process, signal.SIGKILL)
    process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


class _interrupted_by_sigterm:
    """Make SIGTERM raise KeyboardInterrupt, so that no part outlives this process."""

    def __enter__(self) -> None:
        self.before = signal.signal(signal.SIGTERM, signal.default_int_handler)

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self.before)


def format_table(outcomes: Sequence[Outcome]) -> str:
    """Return a line for each part with its outcome, its seconds and its figure."""
    lines = [("part", "outcome", "s", "figure")]
    lines += [
        (each.part, each.status, f"{each.seconds:.0f}" if each.seconds else "", each.figure)
        for each in outcomes
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _name(part: Part) -> str:
    return part.name


def _python_path() -> dict[str, str]:
    """Return the environment with which parts run without an installed package."""
    here = (ROOT, ROOT / "examples", ROOT / "tests", os.environ.get("PYTHONPATH"))
    return {"PYTHONPATH": os.pathsep.join(str(each) for each in here if each)}


def python_command(*arguments: str) -> tuple[str, ...]:
    """Return a command that runs this Python interpreter."""
    return (sys.executable, *arguments)
