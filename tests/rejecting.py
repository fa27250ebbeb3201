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
    if how == "list":
        wanted = rf"{quoted} must be a torch\.Tensor, got list"
        return Spoiled(tensor.tolist(), TypeError, wanted)
    if how == "integer":
        wanted = rf"{quoted} must be floating point, got torch\.int64"
        return Spoiled(tensor.long(), TypeError, wanted)
    if how == "device":
        return Spoiled(tensor.to("meta"), ValueError, rf"(?=.*meta)(?=.*device).*({either})")
    if how == "dtype":
        return Spoiled(tensor.half(), TypeError, rf"(?=.*float16).*({either})")
    raise ValueError(f"how: expected one of {SPOILS}, got {how!r}")
