"""Hand-written passes: the interface of a form of an operator, and how autograd calls it."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from fdrl_layers.ops.backend import without_autocast

Options = TypeVar("Options", contravariant=True)
Tensors = Sequence[Tensor | None]
Needs = Sequence[bool]


class Form(Protocol[Options]):
    """One way to compute an operator of tensors and options, with its derivative."""

    def forward(
        self, tensors: Tensors, options: Options, keep: bool
    ) -> tuple[Sequence[Tensor], Tensors]:
        """Return the outputs, and the tensors that backward reads in addition to `tensors`.

        Without `keep` these are as few as possible, and backward recomputes the rest.
        """

    def backward(
        self, gradients: Tensors, tensors: Tensors, saved: Tensors, options: Options, needs: Needs
    ) -> Tensors:
        """Return the gradient of each of `tensors`, None where `needs` is False."""

    def reference(self, tensors: Tensors, options: Options) -> Tensors:
        """Return the outputs, by operators that can be differentiated any number of times."""


def apply(
    form: Form[Options], options: Options, tensors: Tensors, *, keep: bool = True
) -> tuple[Tensor, ...]:
    """Compute the outputs by a form whose backward pass autograd then calls."""
    device = next(each for each in tensors if each is not None).device
    with without_autocast(device.type):
        outputs: tuple[Tensor, ...] = _ByHand.apply(form, options, keep, *tensors)
    return outputs


class _ByHand(torch.autograd.Function):
    """A form with its own backward; the second derivative is that of its reference."""

    @staticmethod
    def forward(
        ctx: Any, form: Form[Any], options: Any, keep: bool, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        ctx.form, ctx.options, ctx.count = form, options, len(tensors)
        ctx.set_materialize_grads(False)
        keep = keep and any(ctx.needs_input_grad)
        outputs, saved = form.forward(tensors, options, keep)
        ctx.save_for_backward(*tensors, *saved)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        every, needs = ctx.saved_tensors, ctx.needs_input_grad[3:]
        tensors, saved = every[: ctx.count], every[ctx.count :]
        device = next(each for each in tensors if each is not None).device
        with without_autocast(device.type):
            # A batch of gradients is vmapped, which hand-written passes do not support.
            batched = any(each is not None and _is_batched(each) for each in gradients)
            again = torch.is_grad_enabled()
            if again or batched:
                found: Tensors = _by_reference(
                    ctx.form, ctx.options, gradients, tensors, needs, again=again
                )
            else:
                found = ctx.form.backward(gradients, tensors, saved, ctx.options, needs)
        return (None, None, None, *found)


def _is_batched(gradient: Tensor) -> bool:
    functorch = torch._C._functorch
    return functorch.is_legacy_batchedtensor(gradient) or functorch.is_batchedtensor(gradient)


def _by_reference(
    form: Form[Any],
    options: Any,
    gradients: Tensors,
    tensors: Tensors,
    needs: Needs,
    *,
    again: bool,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of the tensors; with `again`, they have a graph of their own."""
    with torch.enable_grad():
        # Use aliases, so that an input that was computed from another is not counted twice.
        twins = [None if each is None else each.view_as(each) for each in tensors]
        output = form.reference(twins, options)
    pairs = [
        (value, gradient)
        for value, gradient in zip(output, gradients, strict=True)
        if value is not None and gradient is not None
    ]
    wanted = [twin for twin, need in zip(twins, needs, strict=True) if need and twin is not None]
    found = iter(
        torch.autograd.grad(
            [value for value, _ in pairs],
            wanted,
            [gradient for _, gradient in pairs],
            create_graph=again,
            allow_unused=True,
        )
    )
    return tuple(
        next(found) if need and twin is not None else None
        for twin, need in zip(twins, needs, strict=True)
    )
