"""Conversion from and to the public checkpoint layout with one linear layer per branch."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from fdrl_layers._checks import check_device, check_floating, check_shape
from fdrl_layers.head import FDRLHead
from fdrl_layers.layers import Reduction, SelfFeature

__all__ = ["backbone_from_branches", "head_from_branches", "to_branches"]

_BRANCHES = {
    "decomposition": "fdn.fdn_fc",
    "reconstruction.intra": "frn.intra_rm.intra_fc",
    "reconstruction.inter": "frn.inter_rm.inter_fc",
}
"""The name of each stack in a head, and how the names of its branches begin."""

_AXES = {"decomposition": "D P", "classifier": "K D"}
"""The axes of the layers' weights that are not (D, D)."""

_CHILDREN = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
"""The index, among the children of torchvision's ResNet-18, of each part with parameters."""

_WRAPPERS = ("state_dict", "model_state_dict", "model")


def head_from_branches(
    checkpoint: Mapping[str, Any],
    *,
    delta: float = 0.5,
    reduction: Reduction = "sum",
    self_feature: SelfFeature = "message",
) -> FDRLHead:
    r"""Build a head from a checkpoint that has one linear layer per branch.

    Slice j of a stack is branch j of the checkpoint; P, M, D and K are read from the shapes. The
    code that writes this layout differs from the paper in equation 11:

    .. math::
        y_{i,j} = \delta g_{i,j} + (1 - \delta) \hat f_{i,j}
        \qquad\text{in place of}\qquad y_{i,j} = \delta f_{i,j} + (1 - \delta) \hat f_{i,j}

    A head keeps the checkpoint's accuracy only if it computes what was trained. This is therefore
    the default here, and only here.

    Args:
        checkpoint: A state dict, or a mapping with one under "state_dict", "model_state_dict" or
            "model". All keys may begin with "module.". Keys of a backbone, "backbone.*", are for
            :func:`backbone_from_branches`.
        delta: Share of the self feature, in [0, 1]. Paper: 0.5.
        reduction: How D gate values become one Intra-W; that code uses "sum".
        self_feature: "message", equation 11 as in that code, or "intra", as printed.

    Shape:
        - ``fdn.fdn_fc{j}.0.weight``: (D, P), with j from 0 or from 1.
        - ``frn.intra_rm.intra_fc{j}.0.weight``, ``frn.inter_rm.inter_fc{j}.0.weight``: (D, D).
        - ``epn.weight``: (K, D). The key may have one more word, as in ``epn.0.weight``.
        - the biases, which either all layers have or none: (D,) and (K,).

    Returns:
        A head in the type and on the device of the checkpoint, without shared memory.

    Raises:
        TypeError: If `checkpoint` is not a mapping of text, a value is not a floating-point tensor,
            or the types differ.
        ValueError: If a key is missing or not part of this layout, the shapes do not fit, the
            devices differ, or an option is out of range.

    Reference:
        The keys are those of github.com/PinJui/FDRL.

    Example:
        >>> import torch
        >>> from fdrl_layers import FDRLHead
        >>> from fdrl_layers.convert import head_from_branches, to_branches
        >>> checkpoint = {"epoch": 40, "state_dict": to_branches(FDRLHead(512, 7))}
        >>> head = head_from_branches(checkpoint)
        >>> head(torch.randn(4, 512)).logits.shape
        torch.Size([4, 7])
    """
    branches = _part(checkpoint, ("fdn", "frn", "epn"))
    layout = _layout(
        _numbers(branches), _classifier(branches), any(key.endswith(".bias") for key in branches)
    )
    _check_keys(branches, (key for keys in layout.values() for key in keys))
    _check_tensors(branches, layout)
    stacks = {name: torch.stack([branches[key] for key in keys]) for name, keys in layout.items()}
    state = {name: stack[0] if _is_single(name) else stack for name, stack in stacks.items()}
    m, d, p = state["decomposition.weight"].shape
    head = FDRLHead(
        p,
        state["classifier.weight"].shape[0],
        latent_dim=d,
        num_latents=m,
        delta=delta,
        reduction=reduction,
        bias="decomposition.bias" in state,
        self_feature=self_feature,
        # On "meta" nothing is drawn that the checkpoint would overwrite.
        device="meta",
        dtype=state["decomposition.weight"].dtype,
    )
    head.load_state_dict(state, assign=True)
    return head


def backbone_from_branches(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the ResNet-18 in a checkpoint that has one linear layer per branch.

    In this layout a ResNet-18 is the sequence of its children. Children 0, 1 and 4 to 7 have
    parameters; torchvision calls them conv1, bn1 and layer1 to layer4.

    Args:
        checkpoint: As in :func:`head_from_branches`, whose keys are optional here.

    Shape:
        - ``backbone.{0,1,4,5,6,7}.*``: as in torchvision's ResNet-18; the shapes are not checked.

    Returns:
        A state dict for ``torchvision.models.resnet18`` without its ``fc``; all tensors are copies.

    Raises:
        TypeError: If `checkpoint` is not a mapping of text, or a value is not a tensor.
        ValueError: If a key is missing or not part of this layout.

    Reference:
        The keys are those of github.com/PinJui/FDRL, and of torchvision.

    Example:
        >>> import torch
        >>> from torchvision.models import resnet18
        >>> from fdrl_layers import FDRLHead
        >>> from fdrl_layers.convert import backbone_from_branches, to_branches
        >>> backbone = resnet18()
        >>> backbone.fc = torch.nn.Identity()
        >>> checkpoint = to_branches(FDRLHead(512, 7), backbone.state_dict())
        >>> backbone.load_state_dict(backbone_from_branches(checkpoint))
        <All keys matched successfully>
    """
    found = _part(checkpoint, ("backbone",))
    layout = _backbone_layout()
    _check_keys(found, layout.values())
    return {ours: found[theirs].clone() for ours, theirs in layout.items()}


def to_branches(
    head: FDRLHead, backbone: Mapping[str, Tensor] | None = None, *, classifier: str = "epn"
) -> dict[str, Tensor]:
    """Return a head's parameters with one linear layer per branch: the inverse of the others.

    Args:
        head: A head with both relations and a prediction layer.
        backbone: The state dict of torchvision's ResNet-18 without its ``fc``, if there is one.
        classifier: The name of the prediction layer, "epn" or "epn.WORD".

    Shape:
        - Output: the keys and shapes of :func:`head_from_branches`, with j from 0, and those of
          :func:`backbone_from_branches`.

    Returns:
        A state dict; all tensors are copies.

    Raises:
        TypeError: If `head` is not an :class:`FDRLHead`, or a value of `backbone` is not a tensor.
        ValueError: If the head lacks a part, a key of `backbone` is missing or is not ResNet-18's,
            or `classifier` is not part of this layout.

    Note:
        A head that computes equation 11 as printed, the default of :class:`FDRLHead`, gives other
        results in code that uses the message there.

    Reference:
        The keys are those of github.com/PinJui/FDRL.

    Example:
        >>> from fdrl_layers import FDRLHead
        >>> from fdrl_layers.convert import to_branches
        >>> state = to_branches(FDRLHead(512, 7))
        >>> state["fdn.fdn_fc8.0.weight"].shape, state["epn.weight"].shape
        (torch.Size([128, 512]), torch.Size([7, 128]))
    """
    if not isinstance(head, FDRLHead):
        raise TypeError(f"`head` must be an FDRLHead, got {type(head).__name__}")
    if not re.fullmatch(r"epn(\.\w+)?", classifier):
        raise ValueError(f'`classifier` must be "epn" or "epn.WORD", got {classifier!r}')
    ours = head.state_dict()
    for path in (*_BRANCHES, "classifier"):
        if f"{path}.weight" not in ours:
            raise ValueError(f"`head` must have `{path}`, which this layout has, got None")
    layout = _layout(
        range(head.reconstruction.num_latents), classifier, "decomposition.bias" in ours
    )
    branches = {
        key: row.clone()
        for name, keys in layout.items()
        for key, row in zip(keys, [ours[name]] if _is_single(name) else ours[name], strict=True)
    }
    if backbone is None:
        return branches
    names = _backbone_layout()
    _check_keys(backbone, names, "backbone")
    _check_are_tensors("backbone", backbone)
    return branches | {theirs: backbone[name].clone() for name, theirs in names.items()}


def _part(checkpoint: Mapping[str, Any], roots: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the tensors under `roots`, after checking every key."""
    found = _unwrapped(checkpoint)
    _check_are_tensors("checkpoint", found)
    known = ("fdn.", "frn.", "epn.", "backbone.")
    unknown = [key for key in found if not key.startswith(known)]
    if unknown:
        expected = ", ".join(f"{root}*" for root in known)
        raise ValueError(f"`checkpoint` must have keys {expected} alone, got {_some(unknown)}")
    return {key: value for key, value in found.items() if key.split(".")[0] in roots}


def _unwrapped(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state dict in a checkpoint, without the prefix that ``DataParallel`` adds."""
    if not isinstance(checkpoint, Mapping):
        raise TypeError(f"`checkpoint` must be a mapping, got {type(checkpoint).__name__}")
    inside = [name for name in _WRAPPERS if isinstance(checkpoint.get(name), Mapping)]
    if len(inside) > 1:
        raise ValueError(f"`checkpoint` must hold one state dict, got several: {_some(inside)}")
    state = checkpoint[inside[0]] if inside else checkpoint
    for key in state:
        if not isinstance(key, str):
            raise TypeError(f"`checkpoint` must have text for keys, got {key!r}")
    prefix = "module." if all(key.startswith("module.") for key in state) else ""
    return {key.removeprefix(prefix): value for key, value in state.items()}


def _numbers(branches: Iterable[str]) -> range:
    """Return the numbers of the branches: consecutive, beginning with 0 or 1."""
    matches = (re.match(r"fdn\.fdn_fc(\d{1,3})\.", key) for key in branches)
    numbers = {int(match[1]) for match in matches if match}
    if not numbers:
        raise ValueError("`checkpoint` must have keys fdn.fdn_fc0.0.weight and so on, got none")
    return range(0 if 0 in numbers else 1, max(numbers) + 1)


def _classifier(branches: Iterable[str]) -> str:
    """Return the name of the one linear layer below "epn", or "epn" itself."""
    matches = (re.fullmatch(r"(epn(?:\.\w+)?)\.weight", key) for key in branches)
    names = [match[1] for match in matches if match]
    if len(names) != 1:
        found = _some([f"{name}.weight" for name in names]) if names else "none"
        raise ValueError(f"`checkpoint` must have one key epn.weight or epn.*.weight, got {found}")
    return names[0]


def _layout(numbers: range, classifier: str, bias: bool) -> dict[str, list[str]]:
    """Return the keys of a head, each with the keys of its branches."""
    kinds = ("weight", "bias") if bias else ("weight",)
    stacked = {
        f"{path}.{kind}": [f"{start}{j}.0.{kind}" for j in numbers]
        for path, start in _BRANCHES.items()
        for kind in kinds
    }
    return stacked | {f"classifier.{kind}": [f"{classifier}.{kind}"] for kind in kinds}


def _is_single(name: str) -> bool:
    return name.startswith("classifier")


def _backbone_layout() -> dict[str, str]:
    """Return the keys of torchvision's ResNet-18 without fc, each with its key in the layout."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    pairs = [("conv1", "bn1")]
    for block in (f"layer{layer}.{half}" for layer in range(1, 5) for half in range(2)):
        pairs += [(f"{block}.conv{half}", f"{block}.bn{half}") for half in (1, 2)]
        if block in ("layer2.0", "layer3.0", "layer4.0"):
            pairs.append((f"{block}.downsample.0", f"{block}.downsample.1"))
    ours = [
        name
        for conv, bn in pairs
        for name in (f"{conv}.weight", *(f"{bn}.{each}" for each in norm))
    ]
    return {name: _in_sequence(*name.split(".", 1)) for name in ours}


def _in_sequence(child: str, rest: str) -> str:
    return f"backbone.{_CHILDREN[child]}.{rest}"


def _check_keys(found: Iterable[str], expected: Iterable[str], name: str = "checkpoint") -> None:
    """Raise unless `found` and `expected` are the same keys."""
    found, expected = list(found), list(expected)
    missing = [key for key in expected if key not in found]
    unknown = [key for key in found if key not in expected]
    listed = {"missing": missing, "not of this layout": unknown}
    if missing or unknown:
        told = "; ".join(f"{what}: {_some(keys)}" for what, keys in listed.items() if keys)
        raise ValueError(f"`{name}` has not the keys that it must have; {told}")


def _check_are_tensors(name: str, state: Mapping[str, Any]) -> None:
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"`{name}[{key!r}]` must be a tensor, got {type(value).__name__}")


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
    return ", ".join(keys[:5]) + more


def _check_tensors(branches: Mapping[str, Tensor], layout: Mapping[str, list[str]]) -> None:
    """Raise unless the branches have fitting shapes, devices and types."""
    first_name = layout["decomposition.weight"][0]
    first = branches[first_name]
    sizes: dict[str, int] = {}
    for name, keys in layout.items():
        path, _, kind = name.rpartition(".")
        letters = _AXES.get(path, "D D").split()[: 1 if kind == "bias" else 2]
        for key in keys:
            tensor = branches[key]
            check_floating(key, tensor)
            known = {letter: sizes[letter] for letter in letters if letter in sizes}
            check_shape(key, tensor, " ".join(letters), **known)
            sizes |= zip(letters, tensor.shape, strict=True)
            check_device(key, tensor, first_name, first)
            if tensor.dtype != first.dtype:
                wanted = f"{first.dtype}, the type of `{first_name}`"
                raise TypeError(f"`{key}` must be {wanted}, got {tensor.dtype}")
