"""Conversion of a backbone's output to basic features (N, P)."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from torch import Tensor

from fdrl_layers._checks import check_choice

PoolName = Literal["auto", "none", "mean", "token", "channels-last"]
Pool = PoolName | Callable[[Any], Tensor]

POOLED = ("pooler_output",)
UNPOOLED = ("last_hidden_state", "feature_maps")
LOGITS = ("logits",)


def check_pool(pool: Pool) -> None:
    """Raise unless `pool` is a known name or a callable."""
    if isinstance(pool, str):
        check_choice("pool", pool, get_args(PoolName))
    elif not callable(pool):
        raise TypeError(f"`pool` must be a string or a function, got {type(pool).__name__}")


def pool_feature(output: Any, pool: Pool = "auto", width: int | None = None) -> Tensor:
    """Return the basic features of a backbone's output; `width` is P if it is known."""
    if not isinstance(pool, str):
        feature = pool(output)
        if not isinstance(feature, Tensor):
            raise TypeError(f"`pool` must return a torch.Tensor, got {type(feature).__name__}")
    else:
        feature = _pooled(chosen_entry(output, pool)[1], pool, width)
    if width is not None and feature.shape[-1] != width:
        raise ValueError(
            f"`backbone` must give features of `head.in_features` = {width}, got "
            f"{tuple(feature.shape)} after pooling; attach_head takes a classifier off and finds "
            "the width"
        )
    return feature


def resolved(output: Any, pool: Pool) -> Pool:
    """Replace "auto" by the name that it stands for if the output is maps."""
    if pool != "auto":
        return pool
    tensor = chosen_entry(output, pool)[1]
    return _layout(tensor, None) if _is_maps(tensor, None) else pool


def chosen_entry(output: Any, pool: PoolName) -> tuple[str, Tensor]:
    """Return the name and the tensor of the entry to pool; the name of a bare tensor is empty."""
    if isinstance(output, Tensor):
        return "", output
    if not isinstance(output, Mapping):
        raise TypeError(
            f"`backbone` gave a {type(output).__name__}, in which the feature is not known: give "
            "`pool` a function of it that returns (N, P)"
        )
    # All other choices require an output that is not pooled yet.
    order = POOLED + UNPOOLED + LOGITS if pool == "auto" else UNPOOLED
    for name in order:
        entry = output.get(name)
        if name == "feature_maps" and entry:
            entry = entry[-1]
        if isinstance(entry, Tensor):
            _check_entry(name, entry)
            return name, entry
    raise TypeError(
        f"`backbone` gave {', '.join(map(repr, output))}, and `pool` {pool!r} looks for "
        f"{', '.join(order)}: give `pool` a function of it that returns (N, P)"
    )


def _check_entry(name: str, entry: Tensor) -> None:
    if name not in UNPOOLED and (entry.ndim < 2 or any(size != 1 for size in entry.shape[2:])):
        raise ValueError(
            f"`backbone` gave {name!r} of shape {tuple(entry.shape)}, which is no vector a sample: "
            "give `pool` a function that returns (N, P)"
        )


def _pooled(tensor: Tensor, pool: PoolName, width: int | None) -> Tensor:
    if pool == "none":
        return tensor
    if pool == "auto":
        return _by_its_axes(tensor, width)
    if pool == "token" and tensor.ndim == 3:
        return tensor[:, 0]
    if pool == "mean" and tensor.ndim == 3:
        return tensor.mean(1)
    if pool == "mean" and tensor.ndim == 4:
        return tensor.mean((2, 3))
    if pool == "channels-last" and tensor.ndim == 4:
        return tensor.mean((1, 2))
    expected = {
        "token": "tokens (N, T, P)",
        "mean": "tokens (N, T, P) or maps (N, P, H, W)",
        "channels-last": "maps (N, H, W, P)",
    }
    raise ValueError(f"`pool` {pool!r} wants {expected[pool]}, got {tuple(tensor.shape)}")


def _by_its_axes(tensor: Tensor, width: int | None) -> Tensor:
    if tensor.ndim == 2:
        return tensor
    if tensor.ndim == 3:
        return tensor.mean(1)
    if _is_maps(tensor, width):
        return _pooled(tensor, _layout(tensor, width), width)
    if tensor.ndim == 4:
        return tensor.flatten(1)
    raise ValueError(
        "`pool` 'auto' knows (N, P), tokens (N, T, P) and maps (N, P, H, W) or (N, H, W, P), got "
        f"{tuple(tensor.shape)}: give `pool` a function that returns (N, P)"
    )


def _is_maps(tensor: Tensor, width: int | None) -> bool:
    """Return whether the channel axis must be found; maps of a single pixel are vectors already."""
    if tensor.ndim != 4:
        return False
    if width is not None:
        return math.prod(tensor.shape[1:]) != width
    return sum(size != 1 for size in tensor.shape[1:]) > 1


def _layout(tensor: Tensor, width: int | None) -> PoolName:
    """Return the layout of maps, from the number of channels or, if unknown, from H = W."""
    _, a, b, c = tensor.shape
    first, last = (a == width, c == width) if width is not None else (b == c, a == b)
    if first != last:
        return "mean" if first else "channels-last"
    raise ValueError(
        f"`backbone` gave maps of shape {tuple(tensor.shape)}, whose channel axis cannot be told "
        "from the others: give pool='mean' for (N, P, H, W) or pool='channels-last' for "
        "(N, H, W, P)"
    )
