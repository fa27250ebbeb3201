"""End a command early with a line of text and an exit status."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fer.training.progress import Diverged
from fer.training.ranks import Ranks
from fer.training.stopping import Stopped


@contextmanager
def report_errors(ranks: Ranks, resume_hint: Callable[[], str]) -> Iterator[None]:
    """Exit with a one-line error or, after a request to stop, with a hint on how to resume.

    `resume_hint` returns the hint. It is called only then, when the folder of the run is known.
    """
    try:
        yield
    except (OSError, ValueError, Diverged) as error:
        sys.exit(f"error: {error}")
    except Stopped as stopped:
        if ranks.is_first:
            print(f"stopped; {resume_hint()}", flush=True)
        sys.exit(128 + stopped.signal)
