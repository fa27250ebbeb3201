"""The head's kernels, on a GPU or in Triton's interpreter, against the loop in float64.

What they are asked as every form of the head is stands in `tests/ops/test_head.py`.
"""

from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from benchmarks import registry
from benchmarks.counting import count_step_kernels, record_launches
from comparing import assert_close
from devices import OF_KERNELS as DEVICE, marks_of
from fdrl_layers import FDRLHead, use_backend
from fdrl_layers.ops import library
from fdrl_layers.ops.reference.head import HeadParameters, Reduction
from fdrl_layers.ops.triton import head as kernels, plans
from gradients import leaves
from head_checks import KERNELS, check, inputs_for, triton
from head_forms import Form, by_hand, inputs_of, run
from layer_cases import Regime
from loss_cases import gradients_of
from strategies import Sizes, normal

pytestmark = marks_of(DEVICE)
SMALL = Sizes(N=5, P=20, M=3, D=32, K=4)
REDUCTION = pytest.mark.parametrize("reduction", get_args(Reduction))
DTYPE = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
PAIR: tuple[Form, Form] = (triton, by_hand)
FORM = pytest.mark.parametrize("form", KERNELS.values(), ids=KERNELS)


@DTYPE
@REDUCTION
@FORM
def test_matches_the_loop(dtype: torch.dtype, reduction: Reduction, form: Form) -> None:
    check(form, SMALL, dtype, reduction=reduction)


@pytest.mark.parametrize(
    "of",
    [
        *(Sizes(batch, 20, 3, 32, 4) for batch in (0, 1, 2)),
        pytest.param(Sizes(37, 20, 3, 32, 4), marks=pytest.mark.slow),
        pytest.param(Sizes(2, 512, 9, 128, 7), marks=pytest.mark.slow),
    ],
    ids=str,
)
@pytest.mark.parametrize("regime", get_args(Regime))
@FORM
def test_batches_and_regimes(of: Sizes, regime: Regime, form: Form) -> None:
    check(form, of, regime=regime)


@pytest.mark.parametrize(
    "of", [Sizes(3, 7, 1, 32, 1), Sizes(2, 33, 16, 32, 23), Sizes(2, 16, 2, 256, 3)], ids=str
)
@pytest.mark.parametrize("delta", [0.0, 1.0])
def test_odd_sizes(of: Sizes, delta: float) -> None:
    check(triton, of, delta=delta)


def by_triton_as_by_hand(
    change: Callable[..., HeadParameters], **options: Any
) -> dict[str, Tensor]:
    """Outputs and gradients of the kernels, once they are found to be those by hand."""
    results = []
    for form in PAIR:
        x, parameters = inputs_for(form, SMALL, **options)
        results.append(run(form, x, change(parameters)))
    assert_close("head", results[0], results[1])
    return results[0]


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "bare"])
@pytest.mark.parametrize("kept", [8, 6], ids=["classified", "bare"])
def test_parts_may_be_missing(bias: bool, kept: int) -> None:
    by_triton_as_by_hand(lambda p: HeadParameters(*p[:kept], *[None] * (8 - kept)), bias=bias)


@pytest.mark.parametrize("bias", [-1.0, 0.5], ids=["dead", "coincident"])
def test_messages_that_are_dead_or_coincide(bias: float) -> None:
    def alike(p: Any) -> HeadParameters:
        with torch.no_grad():
            p.inter_weight[:2] = 0
            p.inter_bias[:2] = bias
        return HeadParameters(*p)

    found = by_triton_as_by_hand(alike, regime="small")
    assert not found["inter_weights"][:, 0, 1].any()


def test_second_derivatives_are_those_of_the_reference() -> None:
    results = []
    for form in PAIR:
        x, parameters = inputs_for(form, SMALL, regime="small")
        logits = form(x, parameters, 0.25, "sum").logits
        (first,) = torch.autograd.grad(logits.square().sum(), x, create_graph=True)
        results.append(torch.autograd.grad(first.square().sum(), x)[0])
    assert_close("second", results[0], results[1])


def test_parameters_in_float32_under_features_in_bfloat16() -> None:
    # As autocast has it: products in bfloat16, gradients of parameters in float32.
    results = []
    for form in PAIR:
        x, parameters = inputs_for(form, SMALL)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=form is triton):
            outputs = form(x, parameters, 0.25, "sum")
        if form is triton:
            types = (outputs.logits.dtype, outputs.intra_weights.dtype)
            assert types == (torch.bfloat16, torch.float32)
        total = torch.stack([value.to(x.dtype).sum() for value in outputs]).sum()
        results.append(gradients_of(total, inputs_of(x, parameters)))
    for name, want in results[1].items():
        assert results[0][name].dtype == torch.float32
        scale = 3 * want.abs().max().item()
        assert_close(name, results[0][name], want, torch.bfloat16, scale=scale)


@DTYPE
def test_the_way_of_large_batches(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "ONE_LAUNCH_LIMIT", 0)  # above it products are those of cuBLAS
    check(triton, SMALL, dtype)


@pytest.mark.parametrize("width", [32, 128])
@pytest.mark.parametrize("num_latents", [4, 5])
def test_lanes_of_large_batches(
    width: int, num_latents: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Several samples a warp, the last program of which has rows beyond the batch.
    monkeypatch.setattr(plans, "lanes", lambda *_: plans.Lanes(256 // width, 8, 1))
    # Which remembers what it made of other lanes.
    monkeypatch.setattr(kernels, "plan_launches", plans.plan_launches.__wrapped__)
    check(triton, Sizes(3, 20, num_latents, width, 4))


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_opcheck(keep: bool) -> None:
    x, parameters = inputs_for(triton, SMALL)
    there = leaves(*(None if each is None else each.to(DEVICE) for each in (x, *parameters)))
    torch.library.opcheck(library.head, (*there, 0.25, "sum", keep))


@pytest.mark.usefixtures("fresh_compiler")
def test_compiles_in_one_graph() -> None:
    model = FDRLHead(SMALL.P, SMALL.K, latent_dim=SMALL.D, num_latents=SMALL.M, device=DEVICE)
    x, results = normal(SMALL.N, SMALL.P, seed=4).float().to(DEVICE), []
    for form in (torch.compile(model, fullgraph=True, backend="aot_eager"), model):
        with use_backend("triton"):
            logits = form(x).logits
            found = gradients_of(logits.square().sum(), dict(model.named_parameters()))
        results.append((logits, found))
    assert torch.equal(results[0][0], results[1][0])
    assert_close("gradient", results[0][1], results[1][1])


def test_two_launches_forward_and_three_backward() -> None:
    x, parameters = inputs_for(triton, SMALL)
    with record_launches() as names:
        output = triton(x, parameters, 0.25, "sum")
        assert names == ["branch_forward", "relation_forward"]
        output.logits.sum().backward()
    assert names[2:] == ["relation_backward", "branch_backward", "parameter_gradients"]


def test_a_training_step_is_12_kernels() -> None:
    sizes = registry.Sizes(N=4, P=8, M=2, D=32, K=3)
    version = next(each for each in registry.VERSIONS if each.name == "triton")
    step = registry.build_step(version, sizes, "training", DEVICE)
    for _ in range(2):
        step.run()  # until every center has met data
    assert count_step_kernels(step.run) <= 12


@pytest.mark.parametrize("batch", [1, 129, 513, 70000])
@pytest.mark.parametrize("width", [32, 64, 128, 256])
def test_blocks_are_powers_of_two_that_products_take(batch: int, width: int) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        size = plans.blocks(batch, width, dtype)
        assert {size.samples, size.terms} <= {16, 32, 64}
        assert width % size.terms == 0
