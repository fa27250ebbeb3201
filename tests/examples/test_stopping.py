import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from fer.training.stopping import SIGNALS, listen_for_signals


@pytest.fixture(autouse=True)
def before() -> Iterator[list[int]]:
    """Put handlers in place that write down what reaches them."""
    reached: list[int] = []
    handlers = {each: signal.getsignal(each) for each in SIGNALS}
    for each in SIGNALS:
        signal.signal(each, lambda number, frame: reached.append(number))
    yield reached
    for each, handler in handlers.items():
        signal.signal(each, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_a_request_and_again_acts_as_always(number: int, before: list[int]) -> None:
    with listen_for_signals() as request:
        assert request.signal == 0
        send(number)
        assert request.signal == number
        assert before == []
        send(number)
        assert before == [number]


def test_the_first_signal_is_told_and_all_act_as_before_however_the_block_ends(
    before: list[int],
) -> None:
    # Ctrl-C under torchrun: SIGINT from the terminal, then SIGTERM from torchrun.
    def fail() -> None:
        with listen_for_signals() as request:
            send(signal.SIGINT)
            send(signal.SIGTERM)
            raise ArithmeticError(request.signal)

    with pytest.raises(ArithmeticError, match=f"^{signal.SIGINT:d}$"):
        fail()
    assert before == []
    for each in SIGNALS:
        send(each)
    assert before == list(SIGNALS)


def test_a_thread_leaves_signals_alone() -> None:
    def work() -> tuple[object, int]:
        with listen_for_signals() as request:
            return signal.getsignal(signal.SIGTERM), request.signal

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work).result() == (signal.getsignal(signal.SIGTERM), 0)
