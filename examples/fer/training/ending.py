"""How a command ends before its end: a line for the reader, a status for the shell."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fer.training.progress import Diverged
from fer.training.ranks import Ranks
from fer.training.stopping import Stopped


@contextmanager
def report_errors(ranks: Ranks, going_on: Callable[[], str]) -> Iterator[None]:
    """Exit with an error in a line, or, after a request to stop, with how one goes on.

    `going_on` is asked only then, when it is known where a run is kept.
    """
    try:
        yield
    except (OSError, ValueError, Diverged) as error:
        sys.exit(f"error: {error}")
    except Stopped as stopped:
        if ranks.first:
            print(f"stopped; {going_on()}", flush=True)
        sys.exit(128 + stopped.signal)
