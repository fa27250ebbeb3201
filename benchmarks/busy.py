"""How long a GPU works in a step, and on how many kernels: the rest of a step is Python's time."""

from collections.abc import Callable, Iterable

import torch
from torch.profiler import ProfilerActivity, profile

STEPS = 5
COPIES = ("Memcpy", "Memset")
"""What the names of work begin with that keeps the GPU busy and is no kernel."""

Work = tuple[str, float, float]
"""A name, and when it began and ended, in microseconds."""


def gpu_work(run: Callable[[], object]) -> tuple[float, int]:
    """Return the seconds that the GPU is busy in a step, and the kernels that run in it."""
    for _ in range(2):
        run()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        for _ in range(STEPS):
            run()
        torch.cuda.synchronize()
    events = profiled.events() or []
    seconds, kernels = summed(
        (event.name, event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type.name == "CUDA" and not getattr(event, "is_user_annotation", False)
    )
    return seconds / STEPS, round(kernels / STEPS)


def summed(work: Iterable[Work]) -> tuple[float, int]:
    """Return the seconds in which something runs, what overlaps counted once, and the kernels."""
    busy, kernels, end = 0.0, 0, float("-inf")
    for name, began, ended in sorted(work, key=lambda each: each[1]):
        busy += max(0.0, ended - max(began, end))
        end = max(end, ended)
        kernels += not name.startswith(COPIES)
    return busy * 1e-6, kernels
