"""SIGTERM and Ctrl-C as requests: the step under way is finished and kept first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """A run was asked to stop, and has kept what it had.

    Attributes:
        signal: The signal that asked.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(f"stopped by signal {signal}")
        self.signal = signal


class Requests:
    """What was asked for so far: 0, or the number of a signal."""

    signal = 0


@contextmanager
def listen_for_signals() -> Iterator[Requests]:
    """Turn signals into requests within a block; the same one again acts as it always does.

    Another one does not: of Ctrl-C, torchrun's processes get a SIGINT from the terminal and a
    SIGTERM from torchrun.
    """
    requests = Requests()
    # Only the main thread may set handlers; elsewhere signals keep what they do.
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return
    # None stands for a handler that was not set from Python, which cannot be set again.
    before = {int(each): signal.getsignal(each) or signal.SIG_DFL for each in SIGNALS}

    def heed(number: int, frame: FrameType | None) -> None:
        requests.signal = requests.signal or number
        signal.signal(number, before[number])

    for each in SIGNALS:
        signal.signal(each, heed)
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
