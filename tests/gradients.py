"""Gradients as the tests take them: through every output, under a random upstream."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from strategies import normal


def upstream(outputs: Mapping[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """A random weight for each element of each output, on its device; no gradient cancels."""
    return {
        name: normal(*output.shape, seed=seed + i, dtype=output.dtype, device=output.device)
        for i, (name, output) in enumerate(outputs.items())
    }


def weighted_sum(outputs: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Tensor:
    """All outputs in one number; the factor 2 makes it a node that is not the last one."""
    terms = [(weights[name] * output).sum() for name, output in outputs.items()]
    return 2 * torch.stack([term.to(terms[-1].dtype) for term in terms]).sum()


def gradients(
    outputs: Mapping[str, Tensor], inputs: Mapping[str, Tensor], seed: int = 0
) -> dict[str, Tensor]:
    """The gradient of a `weighted_sum` in each input, by name; 0 where it has no part."""
    total = weighted_sum(outputs, upstream(outputs, seed))
    found = torch.autograd.grad(total, list(inputs.values()), materialize_grads=True)
    return dict(zip(inputs, found, strict=True))


def leaves(*tensors: Tensor | None) -> tuple[Any, ...]:
    """Copies that want a gradient, for gradcheck; a missing bias stays missing."""
    return tuple(None if t is None else t.detach().clone().requires_grad_() for t in tensors)
