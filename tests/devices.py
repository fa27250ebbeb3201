"""The devices that tests run on. What runs on a GPU is marked `cuda`.

`conftest.py` imports this before anything that defines a kernel.
"""

import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ROOT = Path(__file__).resolve().parents[1]
HAS_CUDA = torch.cuda.is_available()
WITHOUT_CUDA = "needs a GPU that torch.cuda can use"
AVAILABLE = ("cpu", "cuda") if HAS_CUDA else ("cpu",)
"""What the `device` fixture goes through, and `everywhere`."""

ROOM = 2 * 2**30
"""Bytes of a GPU for each process that tests run in: its context, and what they allocate."""

if not HAS_CUDA:
    # Triton reads it when a kernel is defined: without a GPU its interpreter runs the kernels.
    os.environ.setdefault("TRITON_INTERPRET", "1")

OF_KERNELS = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
"""Where Triton's kernels run: on the GPU, or in the interpreter."""


Case = TypeVar("Case")


def marks_of(device: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.cuda] if device == "cuda" else []


def everywhere(cases: Iterable[Case]) -> tuple[Case, ...]:
    """Each case, a dataclass with a `device`, on each of them: all that a test makes is there."""
    return tuple(replace(case, device=device) for device in AVAILABLE for case in cases)  # type: ignore[type-var]


def each_of(cases: Iterable[Any]) -> pytest.MarkDecorator:
    """Run a test with each case, as `case`, by its name and the device where it is no CPU."""
    params = [pytest.param(case, id=name_of(case), marks=marks_of(case.device)) for case in cases]
    return pytest.mark.parametrize("case", params)


def name_of(case: Any) -> str:
    name: str = case.name if case.device == "cpu" else f"{case.name}-{case.device}"
    return name


def with_room(workers: int) -> int:
    """As many of the workers as share the GPU, if there is one, with room for each."""
    if not HAS_CUDA:
        return workers
    return min(workers, max(1, torch.cuda.get_device_properties(0).total_memory // ROOM))


def pretend_to_have_cuda() -> None:
    """Let `torch.cuda.is_available` say yes to what is in this project, where there is no GPU.

    What takes a GPU without being told to then fails here too, for it finds none: where there is
    one, nothing but what is marked `cuda` may use it.
    """
    is_available = torch.cuda.is_available

    def claimed() -> bool:
        asking = Path(sys._getframe(1).f_code.co_filename)
        ours = asking.is_relative_to(ROOT) and "site-packages" not in asking.parts
        return ours or is_available()

    torch.cuda.is_available = claimed


class OneDevice(TorchDispatchMode):
    """Refuses every operator with a tensor elsewhere, a number on the CPU included.

    PyTorch mixes such numbers with any device; on a GPU each costs a copy.
    """

    def __init__(self, device: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves((args, kwargs, result)):
            if isinstance(value, torch.Tensor) and value.device.type != self.device:
                raise AssertionError(f"{func}: a tensor {tuple(value.shape)} on {value.device}")
        return result
