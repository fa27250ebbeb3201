"""The forms of the head's operator, under one signature, and cases that all of them must serve."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from fdrl_layers.ops import library
from fdrl_layers.ops.head import head
from fdrl_layers.ops.reference.head import HeadOutput, HeadParameters, Reduction, reference
from gradients import gradients
from loop_head import LoopHead
from strategies import Sizes, arguments_of

Form = Callable[[Tensor, HeadParameters, float, Reduction], Any]

KEYS = tuple(
    f"{layer}.{kind}"
    for layer in ("decomposition", "reconstruction.intra", "reconstruction.inter", "classifier")
    for kind in ("weight", "bias")
)
"""A head's state-dict keys, in the order of `HeadParameters`."""


def by_hand(x: Tensor, p: HeadParameters, delta: float, reduction: Reduction) -> HeadOutput:
    return head(x, p, delta, reduction, backend="torch")


def recomputing(x: Tensor, p: HeadParameters, delta: float, reduction: Reduction) -> HeadOutput:
    return head(x, p, delta, reduction, backend="torch", recompute=True)


def registered(x: Tensor, p: HeadParameters, delta: float, reduction: Reduction) -> HeadOutput:
    return HeadOutput(*library.head(x, *p, delta, reduction, True)[:5])


def registered_lean(x: Tensor, p: HeadParameters, delta: float, reduction: Reduction) -> HeadOutput:
    return HeadOutput(*library.head(x, *p, delta, reduction, False)[:5])


FORMS: dict[str, Form] = {
    "reference": reference,
    "by hand": by_hand,
    "by hand, recomputing": recomputing,
    "registered": registered,
    "registered, recomputing": registered_lean,
}


def placed(form: Form, device: str) -> Form:
    """A form that does its work on a device, wherever its inputs are; gradients come back."""

    @wraps(form)
    def there(x: Tensor, p: HeadParameters, delta: float, reduction: Reduction) -> Any:
        moved = HeadParameters._make(None if each is None else each.to(device) for each in p)
        return form(x.to(device), moved, delta, reduction)

    return there


def stacked(parameters: Mapping[str, Tensor], dtype: torch.dtype = torch.float64) -> HeadParameters:
    """Leaves that want a gradient, in the order in which a form takes them."""
    return HeadParameters._make(
        parameters[key].to(dtype).clone().requires_grad_() if key in parameters else None
        for key in KEYS
    )


def inputs_of(x: Tensor, parameters: HeadParameters) -> dict[str, Tensor]:
    """All that a gradient may flow to, by name."""
    named = zip(("input", *HeadParameters._fields), (x, *parameters), strict=True)
    return {name: tensor for name, tensor in named if tensor is not None}


def run(
    form: Form,
    x: Tensor,
    parameters: HeadParameters,
    delta: float = 0.25,
    reduction: Reduction = "sum",
    seed: int = 0,
) -> dict[str, Tensor]:
    """The outputs of a form and the gradients of a random weighted sum of them, by name."""
    outputs = form(x, parameters, delta, reduction)
    named = dict(zip(HeadOutput._fields, outputs, strict=True))
    found = gradients(named, inputs_of(x, parameters), seed)
    return named | {f"d {name}": gradient for name, gradient in found.items()}


def expected(
    of: Sizes,
    x: Tensor,
    parameters: Mapping[str, Tensor],
    delta: float = 0.25,
    reduction: Reduction = "sum",
    seed: int = 0,
) -> dict[str, Tensor]:
    """The same by the loop over branches, in float64."""
    bias = "classifier.bias" in parameters
    loop = LoopHead(
        of.P, of.K, latent_dim=of.D, num_latents=of.M, delta=delta, reduction=reduction, bias=bias
    ).double()
    loop.load_rows(parameters)
    x = x.detach().double().requires_grad_()
    outputs = vars(loop(x))
    named = {name: outputs[name] for name in HeadOutput._fields}
    leaves = dict(loop.named_parameters())
    found = gradients(named, {"input": x, **leaves}, seed)
    rows = loop.stacked({name: found[name] for name in leaves})
    return named | {f"d {k}": v for k, v in {"input": found["input"], **arguments_of(rows)}.items()}
