"""Count the kernels that a step launches and the bytes that it saves; this requires no GPU."""

import importlib.util
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

NO_KERNEL = frozenset(
    (
        *("alias", "as_strided", "detach", "diagonal", "expand", "expand_as", "permute", "t"),
        *("select", "slice", "split", "split_with_sizes", "squeeze", "transpose", "unbind"),
        *("unsqueeze", "view", "view_as", "_unsafe_view", "_reshape_alias", "lift_fresh"),
        *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"),
        "_local_scalar_dense",
    )
)
"""Operators that create a view, allocate memory or read a number; they launch no kernel."""


class _Kernels(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counted: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        space, name, *_ = str(func).split(".")
        if name not in NO_KERNEL and space != "fdrl_layers":
            self.counted[name] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def count_kernels() -> Iterator[Counter[str]]:
    """Count, by name, the PyTorch operators that launch a kernel within the context.

    Each operator counts as one kernel, which is not exact for some. Triton's launches are excluded.
    """
    with _Kernels() as kernels:
        yield kernels.counted


@contextmanager
def record_launches() -> Iterator[list[str]]:
    """Collect the names of the kernels that Triton launches on a GPU or in its interpreter."""
    names: list[str] = []
    if importlib.util.find_spec("triton") is None:
        yield names
        return
    from triton.runtime import interpreter, jit

    # The interpreter launches through `run` only since Triton 3.3.
    places: list[tuple[Any, str]] = [
        (jit.JITFunction, "run"),
        (interpreter.GridExecutor, "__call__"),
    ]
    runs = [getattr(*place) for place in places]

    def wrap(run: Any) -> Any:
        def wrapper(self: Any, *arguments: Any, **options: Any) -> Any:
            names.append(self.fn.__name__)
            # Operators that the interpreter calls are not launches.
            with torch.utils._python_dispatch._disable_current_modes():
                return run(self, *arguments, **options)

        return wrapper

    for place, run in zip(places, runs, strict=True):
        setattr(*place, wrap(run))
    try:
        yield names
    finally:
        for place, run in zip(places, runs, strict=True):
            setattr(*place, run)


def count_step_kernels(run: Callable[[], object]) -> int:
    """Return the number of kernels of one step, from both PyTorch and Triton."""
    run()
    with record_launches() as launches, count_kernels() as counted:
        run()
    return counted.total() + len(launches)


def count_saved_bytes(forward: Callable[[], object], model: nn.Module, *others: Tensor) -> int:
    """Return the bytes that a forward pass saves for its backward pass.

    Each storage counts once; storages of parameters, buffers and `others` do not count.
    """
    known = {each.untyped_storage().data_ptr() for each in (*model.parameters(), *others)}
    known |= {each.untyped_storage().data_ptr() for each in model.buffers()}
    kept: dict[int, int] = {}
    alive = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    del result
    return sum(kept.values())
