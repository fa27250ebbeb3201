"""Checks that a module's parts are unmodified, so that a fused form computes what they would.

torch's own transformer layers choose between their fast path and their parts in the same way.
"""

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.nn.modules import module as torch_module
from torch.nn.utils.parametrize import is_parametrized
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

_HOOKS = {
    "_forward_hooks": "forward hook",
    "_forward_pre_hooks": "forward pre-hook",
    "_backward_hooks": "backward hook",
    "_backward_pre_hooks": "backward pre-hook",
}
_GLOBAL_HOOKS = tuple(
    (getattr(torch_module, f"_global{name}"), said) for name, said in _HOOKS.items()
)
_FORWARDS: dict[type[nn.Module], Any] = {nn.Linear: nn.Linear.forward}
"""The `forward` of each class at the time when the class was defined."""


def fusable(kind: type[nn.Module]) -> type[nn.Module]:
    """Register a class whose forward pass has a fused form (a decorator)."""
    _FORWARDS[kind] = kind.forward
    return kind


def reason_to_call(parts: Iterable[tuple[str, nn.Module | None, type[nn.Module]]]) -> str | None:
    """Return why parts (name, module, class) must be called, or None if they are unmodified."""
    for name, part, kind in parts:
        if part is not None and (reason := _reason(part, kind)) is not None:
            return f"`{name}` {reason}"
    for hooks, kind_of_hook in _GLOBAL_HOOKS:
        if hooks:
            return f"all modules have a {kind_of_hook}"
    return None


def _reason(part: nn.Module, kind: type[nn.Module]) -> str | None:
    # Avoid nn.Module's attribute look-up, which is slow: this runs in every forward pass.
    own, found = part.__dict__, type(part)
    # Parametrization gives a module a new class, which computes the same as its base.
    parametrized = found is not kind and is_parametrized(part) and found.__bases__ == (kind,)
    if found is not kind and not parametrized:
        return f"is a {found.__name__}"
    if found.forward is not _FORWARDS[kind]:
        return "has another `forward` in its class"
    if "forward" in own:
        return "has a `forward` of its own"
    if (
        own["_forward_hooks"]
        or own["_forward_pre_hooks"]
        or own["_backward_hooks"]
        or own["_backward_pre_hooks"]
    ):
        return f"has a {next(kind for hooks, kind in _HOOKS.items() if own[hooks])}"
    for name, parameter in own["_parameters"].items():
        if type(parameter) is not nn.Parameter and is_traceable_wrapper_subclass(parameter):
            return f"has a `{name}` that is a {type(parameter).__name__}"
    return None


def weight_and_bias(part: nn.Module | None) -> tuple[Any, Any]:
    """Return `weight` and `bias` of a part, read directly if they are not properties.

    Both are None if the part is None.
    """
    if part is None:
        return None, None
    own = part.__dict__["_parameters"]
    if "weight" in own and "bias" in own:
        return own["weight"], own["bias"]
    return part.weight, part.bias


def reset_parts(module: nn.Module) -> None:
    """Call `reset_parameters` of a module, or recursively of its children if it has none."""
    reset = getattr(module, "reset_parameters", None)
    if callable(reset):
        reset()
        return
    for child in module.children():
        reset_parts(child)
