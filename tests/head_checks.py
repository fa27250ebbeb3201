"""Triton's form of the head, and the check of any form against the loop over branches."""

from typing import Any

import torch
from torch import Tensor

from comparing import assert_close
from devices import OF_KERNELS
from fdrl_layers.ops.backend import INSTALLED
from fdrl_layers.ops.head import head
from fdrl_layers.ops.reference.head import HeadOutput, HeadParameters, Reduction
from head_forms import Form, expected, placed, run, stacked
from layer_cases import Regime
from strategies import Sizes, normal, parameters_for


def _triton(
    x: Tensor, p: HeadParameters, delta: float, reduction: Reduction, **options: Any
) -> HeadOutput:
    return head(x, p, delta, reduction, backend="triton", **options)


def _triton_recomputing(*arguments: Any) -> HeadOutput:
    return _triton(*arguments, recompute=True)


triton, triton_recomputing = placed(_triton, OF_KERNELS), placed(_triton_recomputing, OF_KERNELS)
KERNELS = {"triton": triton, "triton, recomputing": triton_recomputing} if INSTALLED else {}


def type_of(form: Form) -> torch.dtype:
    """The most exact type that a form knows."""
    return torch.float32 if form in KERNELS.values() else torch.float64


def inputs_for(
    form: Form, of: Sizes, seed: int = 0, dtype: torch.dtype | None = None, **options: Any
) -> tuple[Tensor, HeadParameters]:
    """An input and parameters that want a gradient, in a type or in the most exact one."""
    dtype = dtype or type_of(form)
    x = normal(of.N, of.P, seed=seed + 1, dtype=dtype).requires_grad_()
    return x, stacked(parameters_for(of, seed, **options), dtype)


def check(
    form: Form,
    of: Sizes,
    dtype: torch.dtype | None = None,
    *,
    regime: Regime = "default",
    delta: float = 0.25,
    reduction: Reduction = "sum",
) -> None:
    """Hold a form in a type against the loop in float64, which starts from what that type holds."""
    dtype = dtype or type_of(form)
    parameters = parameters_for(of, 3, regime=regime)
    parameters = {key: value.to(dtype).double() for key, value in parameters.items()}
    x = normal(of.N, of.P, seed=2, dtype=dtype).requires_grad_()
    actual = run(form, x, stacked(parameters, dtype), delta, reduction)
    half = dtype in (torch.bfloat16, torch.float16)
    for name, want in expected(of, x, parameters, delta, reduction).items():
        wide = half and name in ("intra_weights", "inter_weights")
        assert actual[name].dtype == (torch.float32 if wide else dtype), name
        # A gradient passes twice as many roundings as a value, and its upstream is rounded too.
        large = 3 * want.abs().max().item() if half and name[:2] == "d " and want.numel() else 0.0
        assert_close(name, actual[name], want, dtype, scale=large)
