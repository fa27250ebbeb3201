"""Handle SIGTERM and Ctrl-C as requests: the current step is finished and stored first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """A run has stopped on request and stored its state.

    Attributes:
        signal: The number of the signal that requested it.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(f"stopped by signal {signal}")
        self.signal = signal


class StopRequest:
    """The requested signal: 0 for none, or its number."""

    signal = 0


@contextmanager
def listen_for_signals() -> Iterator[StopRequest]:
    """Turn signals into requests within a block; the same signal again has its usual effect.

    A different signal does not, because after Ctrl-C the processes of torchrun receive a SIGINT
    from the terminal and a SIGTERM from torchrun.
    """
    request = StopRequest()
    # Only the main thread can set handlers; in other threads, signals keep their usual effect.
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    # None represents a handler that was not set from Python and cannot be restored.
    before = {int(each): signal.getsignal(each) or signal.SIG_DFL for each in SIGNALS}

    def handle(number: int, frame: FrameType | None) -> None:
        request.signal = request.signal or number
        signal.signal(number, before[number])

    for each in SIGNALS:
        signal.signal(each, handle)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
