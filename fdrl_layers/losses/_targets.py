"""Targets: class indices (N,) or class shares (N, K), checked and made into shares."""

import torch
from torch import Tensor

from fdrl_layers._checks import check_shape, check_size
from fdrl_layers.ops.eager.joint import minus_one_hot

FEW = 128
"""Number of samples up to which Python is faster than a call to PyTorch."""


def check_target(target: Tensor, batch: int, num_classes: int, ignore_index: int) -> bool:
    """Raise unless `target` names the classes of a batch, by index (N,) or by shares (N, K).

    Return whether every sample is known to count. Values are checked only if they can be read
    without waiting for a device or breaking a traced graph. On an accelerator, PyTorch's own
    assertion rejects an index out of range.
    """
    check_size("ignore_index", ignore_index, minimum=-(2**63))
    if not isinstance(target, Tensor):
        raise TypeError(f"`target` must be a torch.Tensor, got {type(target).__name__}")
    if target.is_floating_point():
        check_shape("target", target, "N K", N=batch, K=num_classes)
    elif target.dtype == torch.int64:
        check_shape("target", target, "N", N=batch)
    else:
        raise TypeError(
            "`target` must be int64 class indices or floating-point class shares, "
            f"got {target.dtype}"
        )
    if not readable(target):
        return False
    if not target.is_floating_point() and batch and not 0 <= ignore_index < num_classes:
        # One check suffices for a batch without ignored samples, as most are.
        if batch <= FEW:
            values = target.tolist()
            low, high = min(values), max(values)
        else:
            low, high = (int(each) for each in torch.aminmax(target))
        if low >= 0 and high < num_classes:
            return True
    _check_values(target, num_classes, ignore_index)
    return False


def readable(tensor: Tensor) -> bool:
    """Return whether the host can read values without waiting or breaking a traced graph."""
    return (
        not torch.compiler.is_compiling()
        and type(tensor) in (Tensor, torch.nn.Parameter)
        and tensor.device.type == "cpu"
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    )


def _check_values(target: Tensor, num_classes: int, ignore_index: int) -> None:
    if target.is_floating_point():
        off = ~(target >= 0).all(1) | ((target.sum(1, dtype=torch.float64) - 1).abs() > 1e-2)
        if off.any():
            row = int(off.nonzero()[0, 0])
            raise ValueError(
                "`target` must hold class shares, not negative and with a sum of 1 in each row, "
                f"got {target[row].tolist()} in row {row}"
            )
        return
    off = ((target < 0) | (target >= num_classes)) & (target != ignore_index)
    if off.any():
        row = int(off.nonzero()[0, 0])
        raise ValueError(
            f"`target` must be in [0, {num_classes}) or `ignore_index` = {ignore_index}, "
            f"got {int(target[row])} in row {row}"
        )


def class_shares(target: Tensor, num_classes: int, ignore_index: int, dtype: torch.dtype) -> Tensor:
    """Return the share (N, K) of each class in each sample; an ignored sample has none."""
    if target.is_floating_point():
        return target.to(dtype)
    if not torch.compiler.is_compiling() and target.shape[0] == 0:
        return target.new_zeros((0, num_classes), dtype=dtype)
    like = target.new_empty((), dtype=dtype).expand(target.shape[0], num_classes)
    return -minus_one_hot(like, target, ignore_index)
