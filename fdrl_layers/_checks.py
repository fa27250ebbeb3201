"""Argument checks. Every error names the argument, the expected value and the given value."""

from collections.abc import Collection, Sequence
from numbers import Integral, Real

from torch import Tensor

from fdrl_layers._precision import under_autocast


def check_size(name: str, value: int, minimum: int = 1) -> None:
    """Raise unless `value` is an integer of at least `minimum`."""
    if type(value) is int and value >= minimum:
        return
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"`{name}` must be an integer, got {type(value).__name__}: {value!r}")
    if value < minimum:
        raise ValueError(f"`{name}` must be at least {minimum}, got {value}")


def check_number(name: str, value: float, minimum: float, maximum: float = float("inf")) -> None:
    """Raise unless `value` is a finite real number in [`minimum`, `maximum`]."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"`{name}` must be a number, got {type(value).__name__}: {value!r}")
    if not (minimum <= value <= maximum and value != float("inf")):
        limit = f"in [{minimum:g}, {maximum:g}]" if maximum != float("inf") else f">= {minimum:g}"
        raise ValueError(f"`{name}` must be a finite number {limit}, got {value}")


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Raise unless `value` is one of `choices`."""
    if value not in choices:
        expected = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"`{name}` must be one of {expected}, got {value!r}")


def check_floating(name: str, tensor: Tensor) -> None:
    """Raise unless `tensor` is a floating-point tensor."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"`{name}` must be a torch.Tensor, got {type(tensor).__name__}")
    if not tensor.is_floating_point():
        raise TypeError(f"`{name}` must be floating point, got {tensor.dtype}")


def check_shape(name: str, tensor: Tensor, axes: str, **sizes: int) -> None:
    """Raise unless `tensor` has the named axes, e.g. ``"* M D"`` with ``M=9, D=128``.

    A leading ``*`` stands for any number of axes. A letter without a given size may have any size,
    but all its occurrences must have the same size.
    """
    if not _fits(tensor.shape, axes.split(), sizes.copy()):
        letters = axes.split()
        comma = "," if len(letters) == 1 else ""
        given = " and ".join(f"{letter} = {size}" for letter, size in sizes.items())
        raise ValueError(
            f"`{name}` must have shape ({', '.join(letters)}{comma})"
            f"{' with ' + given if given else ''}, got {tuple(tensor.shape)}"
        )


def _fits(shape: Sequence[int], letters: list[str], known: dict[str, int]) -> bool:
    """Return whether a shape has the named axes; a plain loop, as every forward pass runs it."""
    extra = len(shape) - len(letters)
    if letters and letters[0] == "*":
        extra += 1
        letters = letters[1:]
        if extra < 0:
            return False
    elif extra:
        return False
    for axis, letter in enumerate(letters, start=extra):
        size = shape[axis]
        if known.setdefault(letter, size) != size:
            return False
    return True


def check_device(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """Raise unless `tensor` is on the device of `other`."""
    if tensor.device != other.device:
        raise ValueError(
            f"`{name}` must be on {other.device}, the device of `{other_name}`, got {tensor.device}"
        )


def check_alike(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """Raise unless `tensor` has the device of `other` and, outside autocast, its type."""
    check_device(name, tensor, other_name, other)
    if tensor.dtype != other.dtype and not under_autocast(tensor.device.type):
        raise TypeError(
            f"`{name}` must be {other.dtype}, the type of `{other_name}`, got {tensor.dtype}"
        )
