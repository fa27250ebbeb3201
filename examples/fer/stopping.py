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
def listening() -> Iterator[Requests]:
    """Turn signals into requests within a block; a second one acts as it always does."""
    requests = Requests()
    # Only the main thread may set handlers; elsewhere signals keep what they do.
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return
    before = {each: signal.getsignal(each) for each in SIGNALS}

    def heed(number: int, frame: FrameType | None) -> None:
        requests.signal = number
        for each, handler in before.items():
            signal.signal(each, handler)

    for each in SIGNALS:
        signal.signal(each, heed)
    try:
        yield requests
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
