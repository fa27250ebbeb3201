"""Separate layers have a backward pass by hand where that is the same, and keep little for it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from comparing import assert_close
from fdrl_layers import FeatureReconstruction, InterRelation
from fdrl_layers.ops import layers
from fdrl_layers.ops.reference.head import collect, reconstruct

LAYERS: dict[str, Callable[[], torch.nn.Module]] = {
    "reconstruction": lambda: FeatureReconstruction(16, 3),
    "reconstruction, share": lambda: FeatureReconstruction(16, 3, reduction="share", bias=False),
    "inter": lambda: InterRelation(16, 3),
    "inter, no bias": lambda: InterRelation(16, 3, bias=False),
}
EACH = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)


def outputs_of(layer: torch.nn.Module, rows: Tensor) -> tuple[Tensor, ...]:
    if isinstance(layer, InterRelation):
        aware, weights = layer(rows, need_weights=True)
        return aware, weights
    outputs: tuple[Tensor, ...] = layer(rows)
    return outputs


def by_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "plain", lambda tensors: False)


def gradients_of(layer: torch.nn.Module, rows: Tensor, weights: list[Any]) -> list[Tensor]:
    outputs = outputs_of(layer, rows)
    terms = [
        (each.double() * weight).sum()
        for each, weight in zip(outputs, weights, strict=True)
        if weight is not None
    ]
    inputs = [rows, *layer.parameters()]
    found = torch.autograd.grad(sum(terms, torch.zeros(())), inputs, allow_unused=True)
    pairs = zip(found, inputs, strict=True)
    return [torch.zeros_like(each) if grad is None else grad for grad, each in pairs]


@EACH
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lead", [(5,), (2, 3), (), (0,)], ids=str)
def test_gradients_are_those_of_the_reference(
    make: Callable[[], torch.nn.Module],
    dtype: torch.dtype,
    lead: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    layer, rows = make().to(dtype), torch.randn(*lead, 3, 16).relu().to(dtype).requires_grad_()
    outputs = outputs_of(layer, rows)
    every = [torch.randn(each.shape, dtype=torch.float64) for each in outputs]
    cases = [every] + [
        [weight if i == chosen else None for i, weight in enumerate(every)]
        for chosen in range(len(every))
    ]
    found = [gradients_of(layer, rows, weights) for weights in cases]
    by_reference(monkeypatch)
    for value, want in zip(outputs, outputs_of(layer, rows), strict=True):
        close(value, want, dtype)
    for weights, gradients in zip(cases, found, strict=True):
        for gradient, want in zip(gradients, gradients_of(layer, rows, weights), strict=True):
            assert gradient.dtype == dtype
            close(gradient, want, dtype)


def close(found: Tensor, want: Tensor, dtype: torch.dtype) -> None:
    """Compare tensors; in bfloat16 the two ways round in other places."""
    if dtype == torch.bfloat16:
        torch.testing.assert_close(found, want, rtol=0.1, atol=0.1)
    else:
        assert_close("tensor", found, want)


@EACH
def test_the_pass_by_hand_runs_and_gives_way(make: Callable[[], torch.nn.Module]) -> None:
    layer, rows = make(), torch.randn(4, 3, 16).requires_grad_()
    name = "_ByHandBackward"

    def runs(outputs: tuple[Tensor, ...]) -> bool:
        node: Any = outputs[-1].grad_fn
        while node is not None and node.name() in ("ViewBackward0", "UnsafeViewBackward0"):
            node = node.next_functions[0][0]
        return node is not None and name in node.name()

    assert runs(outputs_of(layer, rows))
    with torch.autocast("cpu", torch.bfloat16):
        # Latents that are wider than products are rounded for products alone.
        assert not runs(outputs_of(layer, rows))
        assert runs(outputs_of(layer.to(torch.bfloat16), rows.to(torch.bfloat16)))


def test_nothing_is_counted_twice_where_features_are_made_of_each_other() -> None:
    layer = InterRelation(16, 3).double()
    rows = torch.randn(2, 3, 16, dtype=torch.float64).requires_grad_()
    aware, weights = layer(rows, need_weights=True)
    (first,) = torch.autograd.grad(aware.sum() + weights.sum(), rows, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), rows)
    want_aware, want_weights = collect(rows, layer.weight, layer.bias)
    total = want_aware.sum() + want_weights.sum()
    (want,) = torch.autograd.grad(total, rows, create_graph=True)
    assert_close("first", first, want)
    assert_close("second", second, torch.autograd.grad(want.square().sum(), rows)[0])


def test_a_reconstruction_keeps_a_tenth_of_what_autograd_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layer, latents = FeatureReconstruction(), torch.randn(8, 9, 128).relu().requires_grad_()

    def kept() -> float:
        storages: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            outputs = layer(latents)
        known = {each.untyped_storage().data_ptr() for each in (latents, *layer.parameters())}
        assert outputs[0].requires_grad
        return sum(size for place, size in storages.items() if place not in known) / 8 / 1024

    assert kept() < 10
    by_reference(monkeypatch)
    assert kept() > 50


def test_a_part_that_is_left_out_takes_the_reference() -> None:
    layer = FeatureReconstruction(16, 3, inter=False)
    rows = torch.randn(4, 3, 16)
    assert layer.intra is not None
    want = reconstruct(rows, layer.intra.weight, layer.intra.bias, None, None, 0.5, "sum")
    for found, wanted in zip(layer(rows), want, strict=True):
        assert (found is None) == (wanted is None)
        if found is not None and wanted is not None:
            assert torch.equal(found, wanted)


@EACH
@pytest.mark.parametrize("lead", [(4,), (2, 2), ()], ids=str)
def test_outputs_may_be_changed_in_place(
    make: Callable[[], torch.nn.Module], lead: tuple[int, ...]
) -> None:
    layer, rows = make(), torch.randn(*lead, 3, 16)
    changed = outputs_of(layer, rows)[0]
    want = torch.autograd.grad((3 * changed).square().sum(), list(layer.parameters()))
    changed = outputs_of(layer, rows)[0].mul_(3)
    found = torch.autograd.grad(changed.square().sum(), list(layer.parameters()))
    for one, other in zip(found, want, strict=True):
        assert_close("gradient", one, other)


@EACH
def test_gradients_may_be_batched(make: Callable[[], torch.nn.Module]) -> None:
    layer, rows = make().double(), torch.rand(2, 3, 16, dtype=torch.float64).requires_grad_()
    output = outputs_of(layer, rows)[0]
    along = torch.randn(3, *output.shape, dtype=torch.float64)
    (found,) = torch.autograd.grad(output, rows, along, is_grads_batched=True, retain_graph=True)
    assert not found.requires_grad
    for each, direction in zip(found, along, strict=True):
        (want,) = torch.autograd.grad(output, rows, direction, retain_graph=True)
        assert_close("gradient", each, want)


@EACH
def test_make_fx_sees_through(make: Callable[[], torch.nn.Module]) -> None:
    layer, rows = make(), torch.rand(2, 3, 16)
    traced = make_fx(lambda each: outputs_of(layer, each))(rows)
    for found, want in zip(traced(rows), outputs_of(layer, rows), strict=True):
        assert_close("output", found, want)


def test_what_takes_no_part_has_no_gradient() -> None:
    layer, rows = FeatureReconstruction(16, 3), torch.rand(2, 3, 16).requires_grad_()
    layer(rows)[1].sum().backward()
    assert layer.inter is not None
    assert layer.intra is not None
    assert layer.inter.weight.grad is None
    assert layer.intra.weight.grad is not None
    assert rows.grad is not None


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_infinite_messages_are_as_in_the_reference(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = FeatureReconstruction(16, 3).to(dtype)
    for parameter in layer.parameters():
        torch.nn.init.constant_(parameter, 1.0)
    rows = torch.rand(4, 3, 16).to(dtype)
    rows[0] = 6e4
    rows[1, 0] = torch.inf
    found = layer(rows)
    by_reference(monkeypatch)
    want = layer(rows)
    torch.testing.assert_close(found[2], want[2], rtol=1e-3, atol=1e-3)
    assert torch.equal(found[0].isfinite(), want[0].isfinite())
