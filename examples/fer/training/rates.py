"""Learning rates as tensors, for a captured step, and as numbers, for checkpoints."""

from typing import Any

import torch
from torch import Tensor


def make_capturable(adam: torch.optim.AdamW, device: torch.device) -> None:
    """Make the optimizer's step capturable: its rate becomes a tensor that the schedule fills."""
    for group in adam.param_groups:
        if device.type == "cuda":
            group["capturable"] = True
        # The fused step requires float32 on a GPU and uses the exact number elsewhere.
        exact = torch.float32 if device.type == "cuda" else torch.float64
        group["lr"] = torch.tensor(float(group["lr"]), dtype=exact, device=device)


def rates_to_floats(state: Any) -> Any:
    """Return an optimizer's or schedule's state with numbers, as runs without a graph store it."""
    if isinstance(state, dict):
        plain = {
            name: value if name == "state" else rates_to_floats(value)
            for name, value in state.items()
        }
        return plain | ({"capturable": False} if "capturable" in plain else {})
    if isinstance(state, list):
        return [rates_to_floats(value) for value in state]
    return float(state) if isinstance(state, Tensor) and state.ndim == 0 else state
