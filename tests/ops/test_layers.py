"""Separate layers have a backward pass by hand where that is the same, and keep little for it."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from benchmarks.counting import count_saved_bytes
from comparing import assert_close
from fdrl_layers import FeatureReconstruction, InterRelation
from fdrl_layers.ops import layers
from fdrl_layers.ops.reference.head import collect, reconstruct

Make = Callable[[], torch.nn.Module]
LAYERS: dict[str, Make] = {
    "reconstruction": lambda: FeatureReconstruction(16, 3),
    "reconstruction, share": lambda: FeatureReconstruction(16, 3, reduction="share", bias=False),
    "inter": lambda: InterRelation(16, 3),
    "inter, no bias": lambda: InterRelation(16, 3, bias=False),
}
EACH = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)


def outputs_of(layer: torch.nn.Module, rows: Tensor) -> tuple[Tensor, ...]:
    options = {"need_weights": True} if isinstance(layer, InterRelation) else {}
    outputs: tuple[Tensor, ...] = layer(rows, **options)
    return outputs


def by_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "plain", lambda tensors: False)


@EACH
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lead", [(5,), (2, 3), (), (0,)], ids=str)
def test_gradients_are_those_of_the_reference(
    make: Make, dtype: torch.dtype, lead: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    layer, rows = make().to(dtype), torch.randn(*lead, 3, 16).relu().to(dtype).requires_grad_()
    inputs = [rows, *layer.parameters()]
    weights = [torch.randn(each.shape, dtype=torch.float64) for each in outputs_of(layer, rows)]

    def results() -> list[Tensor]:
        """The outputs, and the gradients of all of them and of each alone."""
        outputs = outputs_of(layer, rows)
        terms = [(each.double() * w).sum() for each, w in zip(outputs, weights, strict=True)]
        sums = [torch.stack(terms).sum(), *terms]
        found = [
            torch.autograd.grad(each, inputs, retain_graph=True, materialize_grads=True)
            for each in sums
        ]
        return [*outputs, *itertools.chain(*found)]

    found = results()
    by_reference(monkeypatch)
    for value, want in zip(found, results(), strict=True):
        assert value.dtype == want.dtype
        if dtype == torch.bfloat16:  # the two ways round in other places
            torch.testing.assert_close(value, want, rtol=0.1, atol=0.1)
        else:
            assert_close("tensor", value, want)


@EACH
def test_the_pass_by_hand_runs_and_gives_way(make: Make) -> None:
    layer, rows = make(), torch.randn(4, 3, 16).requires_grad_()

    def runs(outputs: tuple[Tensor, ...]) -> bool:
        node: Any = outputs[-1].grad_fn
        while node is not None and node.name() in ("ViewBackward0", "UnsafeViewBackward0"):
            node = node.next_functions[0][0]
        return node is not None and "_ByHandBackward" in node.name()

    assert runs(outputs_of(layer, rows))
    with torch.autocast("cpu", torch.bfloat16):
        # Latents that are wider than products are rounded for products alone.
        assert not runs(outputs_of(layer, rows))
        assert runs(outputs_of(layer.to(torch.bfloat16), rows.to(torch.bfloat16)))


def test_nothing_is_counted_twice_where_features_are_made_of_each_other() -> None:
    layer = InterRelation(16, 3).double()
    rows = torch.randn(2, 3, 16, dtype=torch.float64).requires_grad_()
    results = []
    for aware, weights in (outputs_of(layer, rows), collect(rows, layer.weight, layer.bias)):
        (first,) = torch.autograd.grad(aware.sum() + weights.sum(), rows, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), rows)
        results.append({"first": first, "second": second})
    assert_close("derivative", results[0], results[1])


def test_a_reconstruction_keeps_a_tenth_of_what_autograd_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layer, latents = FeatureReconstruction(), torch.randn(8, 9, 128).relu().requires_grad_()

    def kept() -> float:
        return count_saved_bytes(lambda: layer(latents), layer, latents) / 8 / 1024

    assert kept() < 10
    by_reference(monkeypatch)
    assert kept() > 50


def test_a_part_that_is_left_out_takes_the_reference() -> None:
    layer = FeatureReconstruction(16, 3, inter=False)
    rows = torch.randn(4, 3, 16)
    assert layer.intra is not None
    want = reconstruct(rows, layer.intra.weight, layer.intra.bias, None, None, 0.5, "sum")
    *found, inter_weights = layer(rows)
    assert inter_weights is want[-1] is None
    for each, wanted in zip(found, want[:-1], strict=True):
        assert torch.equal(each, wanted)


@EACH
@pytest.mark.parametrize("lead", [(4,), (2, 2), ()], ids=str)
def test_outputs_may_be_changed_in_place(make: Make, lead: tuple[int, ...]) -> None:
    layer, rows = make(), torch.randn(*lead, 3, 16)
    tripled = (outputs_of(layer, rows)[0].mul_(3), 3 * outputs_of(layer, rows)[0])
    gradients = (torch.autograd.grad(e.square().sum(), [*layer.parameters()]) for e in tripled)
    for found, want in zip(*gradients, strict=True):
        assert_close("gradient", found, want)


@EACH
def test_gradients_may_be_batched(make: Make) -> None:
    layer, rows = make().double(), torch.rand(2, 3, 16, dtype=torch.float64).requires_grad_()
    output = outputs_of(layer, rows)[0]
    along = torch.randn(3, *output.shape, dtype=torch.float64)
    (found,) = torch.autograd.grad(output, rows, along, is_grads_batched=True, retain_graph=True)
    assert not found.requires_grad
    for each, direction in zip(found, along, strict=True):
        (want,) = torch.autograd.grad(output, rows, direction, retain_graph=True)
        assert_close("gradient", each, want)


@EACH
def test_make_fx_sees_through(make: Make) -> None:
    layer, rows = make(), torch.rand(2, 3, 16)
    traced = make_fx(lambda each: outputs_of(layer, each))(rows)
    for found, want in zip(traced(rows), outputs_of(layer, rows), strict=True):
        assert_close("output", found, want)


def test_what_takes_no_part_has_no_gradient() -> None:
    layer, rows = FeatureReconstruction(16, 3), torch.rand(2, 3, 16).requires_grad_()
    layer(rows)[1].sum().backward()
    reached = {name for name, each in layer.named_parameters() if each.grad is not None}
    assert reached == {"intra.weight", "intra.bias"}
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
