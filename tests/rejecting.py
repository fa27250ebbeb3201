"""Ways to spoil a tensor argument, and the error that each must raise."""

import re
from typing import Any, NamedTuple

from torch import Tensor

SPOILS = ("list", "integer", "device", "dtype")


class Spoiled(NamedTuple):
    """A bad argument, the type of the error, and what its message must match."""

    value: Any
    error: type[Exception]
    match: str


def spoil(how: str, name: str, tensor: Tensor) -> Spoiled:
    """Spoil the argument called `name`; the meta device serves as the other device."""
    quoted = re.escape(f"`{name}`")
    # What two arguments must share is told of either one, so a message may name this one second.
    either = rf"{quoted} must be .*, got|must be .* of {quoted}, got"
    return {
        "list": Spoiled(tensor.tolist(), TypeError, rf"{quoted} must be a torch\.Tensor, got list"),
        "integer": Spoiled(
            tensor.long(), TypeError, rf"{quoted} must be floating point, got torch\.int64"
        ),
        "device": Spoiled(tensor.to("meta"), ValueError, rf"(?=.*meta)(?=.*device).*({either})"),
        "dtype": Spoiled(tensor.half(), TypeError, rf"(?=.*float16).*({either})"),
    }[how]
