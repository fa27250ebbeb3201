"""The precision in which relation weights, distances, centers and losses are computed."""

import torch
from torch import Tensor


def widened(dtype: torch.dtype) -> torch.dtype:
    """Return float32 for bfloat16 and float16, and any other type unchanged."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


def widen(tensor: Tensor) -> Tensor:
    """Return `tensor` in at least float32.

    Intra-W is a sum of D gates, near D / 2 = 64, where bfloat16 has steps of 0.5; squared distances
    overflow float16 from a distance of 256 on.
    """
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def under_autocast(device_type: str) -> bool:
    """Return whether autocast is on for a device type; it is not if the type has no autocast."""
    # `is_autocast_available` breaks the graph of torch 2.6's compiler, which compiles for no device
    # without autocast.
    available = torch.compiler.is_compiling() or torch.amp.is_autocast_available(device_type)
    return available and torch.is_autocast_enabled(device_type)


def widest(tensor: Tensor) -> Tensor:
    """Return `tensor` in the widest type of its device, for the sums that update centers.

    In float64 the rounding of a sum no longer depends on how a batch is split over ranks, once the
    center is rounded to float32. Apple's GPUs have no float64.
    """
    return tensor.float() if tensor.device.type == "mps" else tensor.double()
