"""Memory for intermediate results, which is kept from one call to the next on a CPU.

The C library returns freed blocks of this size to the system, and the next call pays for a page
fault every 4 KiB.
"""

import math
import threading

import torch
from torch import Tensor

from fdrl_layers._precision import widened

LIMIT = 32 * 2**20
"""The number of bytes that a thread keeps at most for each type; 1,024 samples need 24 MiB."""

MOST_SHAPES = 16
"""The number of calls whose tensors are remembered."""

Shape = tuple[int, ...]


class _Kept(threading.local):
    """The memory of a thread, and the tensors that were made of it."""

    def __init__(self) -> None:
        self.buffers: dict[torch.dtype, Tensor] = {}
        self.tensors: dict[tuple[torch.dtype, tuple[Shape, ...]], list[Tensor]] = {}


_KEPT = _Kept()


def scratch(like: Tensor, *shapes: Shape) -> list[Tensor]:
    """Return uninitialized tensors in at least float32, which the next call overwrites.

    They must not outlive the pass that asks for them, and a pass asks once.
    """
    dtype = widened(like.dtype)
    # A dispatch mode may make tensors that are not real, or call a head in the middle of another.
    if like.device.type != "cpu" or torch._C._len_torch_dispatch_stack():
        return [torch.empty(shape, dtype=dtype, device=like.device) for shape in shapes]
    if (known := _KEPT.tensors.get((dtype, shapes))) is not None:
        return known
    # Each tensor starts at a multiple of 64 bytes.
    sizes = [-(-math.prod(shape) // 16) * 16 for shape in shapes]
    total = sum(sizes)
    if total * dtype.itemsize > LIMIT:
        return [torch.empty(shape, dtype=dtype, device=like.device) for shape in shapes]
    buffer = _KEPT.buffers.get(dtype)
    if buffer is None or buffer.numel() < total or len(_KEPT.tensors) >= MOST_SHAPES:
        _KEPT.tensors.clear()
    # A tensor made in inference mode could not be written to outside of it.
    with torch.inference_mode(False):
        if buffer is None or buffer.numel() < total:
            buffer = _KEPT.buffers[dtype] = torch.empty(total, dtype=dtype, device=like.device)
        pieces = zip(buffer[:total].split(sizes), shapes, strict=True)
        found = [piece[: math.prod(shape)].view(shape) for piece, shape in pieces]
    _KEPT.tensors[dtype, shapes] = found
    return found
