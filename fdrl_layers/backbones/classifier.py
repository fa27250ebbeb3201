"""Finding the classifier of a backbone, whose input is the feature."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from fdrl_layers.backbones.dry_run import run_blank

NAMES = ("fc", "classifier", "heads", "head")
"""Names of the classifiers in torchvision and in many other libraries."""
PASSES_ON = (nn.Dropout, nn.Identity, nn.Flatten)
"""Layers that do not change the numbers in evaluation mode."""


def without_head(backbone: nn.Module) -> nn.Module:
    """Return the base model of a transformers model with a head, and any other model unchanged."""
    if isinstance(getattr(backbone, "base_model_prefix", None), str):
        base = getattr(backbone, "base_model", backbone)
        return base if isinstance(base, nn.Module) else backbone
    return backbone


def take_off(backbone: nn.Module, name: str) -> nn.Module:
    """Replace the layer with this dotted name by an identity, and return the layer."""
    named: dict[str, nn.Module] = dict(backbone.named_modules())
    layer = named.get(name) if name else None
    if layer is None:
        raise ValueError(f"`classifier` must name a layer of `backbone`, got {name!r}")
    put(backbone, name, nn.Identity())
    return layer


def put(backbone: nn.Module, name: str, layer: nn.Module) -> None:
    """Set the submodule with this dotted name to a layer."""
    parent, _, last = name.rpartition(".")
    setattr(backbone.get_submodule(parent), last, layer)


def find_classifier(backbone: nn.Module, images: Callable[[], Tensor]) -> str | None:
    """Return the dotted name of the layer that predicts the classes, or None if there is none.

    timm's models report it. For others, it is the last linear layer of an attribute named in
    `NAMES`, if a dry run shows that the backbone returns its output.

    Raises:
        ValueError: If the backbone ends in a linear layer for which this cannot be determined.
    """
    if hasattr(backbone, "base_model_prefix"):
        return None
    if hasattr(backbone, "_orig_mod"):
        raise ValueError("`backbone` must not be compiled yet: compile the model with its head")
    if callable(getattr(backbone, "get_classifier", None)):
        return _said_by_timm(backbone)
    ran, last = _dry_run(backbone, images())
    ending = _ending(backbone, ran, last)
    found = named_classifier(backbone)
    if last and ending and found and ending.partition(".")[0] == found.partition(".")[0]:
        return found
    if ending is not None and isinstance(backbone.get_submodule(ending), nn.Linear):
        raise ValueError(
            f"`classifier` must be given: `backbone` ends in a linear layer, {ending!r}, that may "
            f"or may not be one. Give classifier={ending!r} to take it off or classifier=None to "
            "keep it"
        )
    return None


def named_classifier(backbone: nn.Module) -> str | None:
    """Return the dotted name of the last linear layer of an attribute named in `NAMES`."""
    for name in NAMES:
        part = getattr(backbone, name, None)
        if isinstance(part, nn.Module):
            found = _last_linear(name, part)
            if found is not None:
                return found
    return None


def _last_linear(name: str, part: nn.Module) -> str | None:
    """Return the name of the layer that predicts the classes; None if an identity replaces it."""
    leaves = [(leaf, layer) for leaf, layer in part.named_modules() if not list(layer.children())]
    for leaf, layer in reversed(leaves):
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            return f"{name}.{leaf}" if leaf else name
        if isinstance(layer, nn.Identity) or list(layer.parameters()):
            return None
    return None


def _said_by_timm(backbone: Any) -> str | None:
    classifier = backbone.get_classifier()
    if classifier is None or isinstance(classifier, nn.Identity):
        return None
    for name, part in backbone.named_modules():
        if part is classifier:
            return str(name)
    raise ValueError(
        "`backbone` has more than one classifier: build it without any (in timm, num_classes=0)"
    )


def _dry_run(backbone: nn.Module, images: Tensor) -> tuple[list[str], list[str]]:
    """Return the names of the layers in running order, and those whose output is the backbone's."""
    ran: list[tuple[str, Any]] = []

    def recorder(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def record(module: nn.Module, inputs: Any, output: Any) -> None:
            ran.append((name, output))

        return record

    named = [(name, part) for name, part in backbone.named_modules() if name]
    hooks = [part.register_forward_hook(recorder(name)) for name, part in named]
    try:
        output = run_blank(backbone, images)
    finally:
        for hook in hooks:
            hook.remove()
    last = [name for name, tensor in ran if _same_numbers(tensor, output)]
    return [name for name, _ in ran], last


def _same_numbers(tensor: Any, output: Any) -> bool:
    """Return whether one tensor is the other, or another view of all its numbers."""
    if tensor is output:
        return True
    if not isinstance(tensor, Tensor) or not isinstance(output, Tensor) or output.is_meta:
        return False
    return tensor.numel() == output.numel() and tensor.data_ptr() == output.data_ptr()


def _ending(backbone: nn.Module, ran: list[str], last: list[str]) -> str | None:
    """Return the name of the layer that computed the output, as far as the dry run shows it."""
    # If a function and not a layer computed the output, use the last layer with parameters.
    for name in reversed(last or ran):
        layer = backbone.get_submodule(name)
        counts = not isinstance(layer, PASSES_ON) if last else bool(list(layer.parameters()))
        if counts and not list(layer.children()):
            return name
    return None
