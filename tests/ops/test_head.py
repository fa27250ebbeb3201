"""Every form of the head against the loop over branches; tests/test_head.py has the oracle."""

import copy
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from benchmarks.counting import count_kernels
from comparing import assert_close
from devices import AVAILABLE, OF_KERNELS, marks_of
from fdrl_layers import FDRLHead, FDRLLoss
from fdrl_layers.ops import library
from fdrl_layers.ops.head import head
from fdrl_layers.ops.reference.head import HeadOutput, HeadParameters, Reduction
from gradients import gradients, leaves
from head_checks import KERNELS, check, inputs_for
from head_forms import FORMS, Form, by_hand, inputs_of, placed, registered, run, stacked
from layer_cases import Regime
from loop_head import LoopHead
from loss_cases import assert_same_state, gradients_of
from strategies import PAPER, Sizes, normal, parameters_for

PLACED = [
    pytest.param(placed(form, device), id=f"{name}, {device}", marks=marks_of(device))
    for device in AVAILABLE
    for name, form in FORMS.items()
]
OF_TRITON = [
    pytest.param(form, id=f"{name}, {OF_KERNELS}", marks=marks_of(OF_KERNELS))
    for name, form in KERNELS.items()
]
FORM = pytest.mark.parametrize("form", PLACED)
ANY_FORM = pytest.mark.parametrize("form", [*PLACED, *OF_TRITON[:1]])
REDUCTION = pytest.mark.parametrize("reduction", get_args(Reduction))
REGIME = pytest.mark.parametrize("regime", get_args(Regime))
BIAS = pytest.mark.parametrize("bias", [True, False], ids=["bias", "bare"])
SMALL = Sizes(N=4, P=5, M=3, D=6, K=2)
WIDE = Sizes(N=4, P=5, M=3, D=32, K=2)
"""Which kernels know too."""


@FORM
@REDUCTION
@REGIME
@pytest.mark.parametrize("batch", [0, 1, 2, 37, 64])
def test_matches_the_loop(form: Form, reduction: Reduction, regime: Regime, batch: int) -> None:
    check(form, Sizes(N=batch, P=5, M=3, D=7, K=4), regime=regime, reduction=reduction)


# Without a GPU what is registered runs in Triton's interpreter, fifty times as long.
@pytest.mark.parametrize(
    "form",
    [
        pytest.param(form, id=name, marks=[pytest.mark.slow] * ("registered" in name))
        for name, form in FORMS.items()
    ],
)
@REGIME
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_matches_the_loop_at_paper_sizes(form: Form, regime: Regime, dtype: torch.dtype) -> None:
    check(form, PAPER, dtype, regime=regime, delta=0.5)


@FORM
@pytest.mark.parametrize("of", [Sizes(3, 4, 1, 5, 2), Sizes(3, 1, 4, 1, 1), Sizes(5, 9, 16, 3, 11)])
@pytest.mark.parametrize("delta", [0.0, 0.5, 1.0])
def test_matches_the_loop_at_odd_sizes(form: Form, of: Sizes, delta: float) -> None:
    check(form, of, delta=delta)


@FORM
@REDUCTION
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_types(form: Form, reduction: Reduction, dtype: torch.dtype) -> None:
    # Of a product with more than 16**3 multiplications in bfloat16 some virtual processors die.
    check(form, Sizes(N=4, P=8, M=3, D=12, K=3), dtype, reduction=reduction)


def assert_same(form: Form, actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Kernels give the same bits; others may add up in another order."""
    if form in KERNELS.values():
        assert_same_state(actual, expected)
    assert_close("gradient", actual, expected)


@ANY_FORM
@BIAS
@pytest.mark.parametrize("missing", range(5), ids=HeadOutput._fields)
def test_any_upstream_gradient_may_be_missing(form: Form, bias: bool, missing: int) -> None:
    results = []
    for each in (form, FORMS["reference"]):
        x, parameters = inputs_for(each, WIDE, 6, bias=bias)
        outputs = [v for i, v in enumerate(each(x, parameters, 0.25, "sum")) if i != missing]
        ups = [normal(*v.shape, seed=i).to(v) for i, v in enumerate(outputs)]
        inputs = inputs_of(x, parameters)
        found = torch.autograd.grad(outputs, list(inputs.values()), ups, materialize_grads=True)
        results.append(dict(zip(inputs, found, strict=True)))
    assert_close("gradient", results[0], results[1])


@ANY_FORM
@pytest.mark.parametrize("only", ["input", *HeadParameters._fields])
def test_what_wants_no_gradient_gets_none(form: Form, only: str) -> None:
    x, parameters = inputs_for(form, WIDE, 6)
    everything = {only: run(form, x, parameters)[f"d {only}"]}
    inputs = inputs_of(x, parameters)
    for name, tensor in inputs.items():
        tensor.requires_grad_(name == only)
    outputs = dict(zip(HeadOutput._fields, form(x, parameters, 0.25, "sum"), strict=True))
    assert_same(form, gradients(outputs, {only: inputs[only]}), everything)


@ANY_FORM
def test_strided_and_expanded_inputs_and_gradients(form: Form) -> None:
    x, parameters = inputs_for(form, WIDE, 8)
    x = torch.cat([x, -x], 1).detach()
    for each in (x[:, ::2], x[:1, : WIDE.P].expand(WIDE.N, -1), x[:, : WIDE.P].t().clone().t()):
        results = []
        for leaf in (each.contiguous(), each):
            leaf = leaf.detach().requires_grad_()
            outputs = form(leaf, parameters, 0.25, "sum")
            total = torch.stack([value.sum() for value in outputs]).sum()  # zero-stride upstream
            results.append(gradients_of(total, inputs_of(leaf, parameters)))
        assert_same(form, *results)


@pytest.mark.parametrize("form", [*PLACED, *OF_TRITON])
@REDUCTION
@pytest.mark.usefixtures("deterministic")
def test_reads_nothing_unwritten_and_gives_the_same_bits_again(
    form: Form, reduction: Reduction
) -> None:
    # `deterministic` fills empty tensors with NaN.
    x, parameters = inputs_for(form, WIDE, 10)
    first, second = (run(form, x, parameters, 0.25, reduction) for _ in range(2))
    assert all(value.isfinite().all() for value in first.values())
    assert_same_state(first, second)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("case", ["dead", "coincident", "both"])
@pytest.mark.filterwarnings("ignore:Input .* requires gradient:UserWarning")
def test_gradcheck_where_messages_are_dead_or_coincide(form: Form, case: str) -> None:
    of = Sizes(N=2, P=3, M=4, D=3, K=2)
    parameters = parameters_for(of, 12, regime="small")
    if case != "coincident":
        # No message of these two branches passes the ReLU: they coincide in 0.
        parameters["reconstruction.inter.weight"][:2] = 0
        parameters["reconstruction.inter.bias"][:2] = -1
    if case != "dead":
        # Messages that equal their bias, whatever the sample.
        parameters["reconstruction.inter.weight"][2:] = 0
        parameters["reconstruction.inter.bias"][2:] = 0.5
    inputs = leaves(normal(of.N, of.P, seed=13), *stacked(parameters))

    def function(x: Tensor, *p: Tensor) -> Any:
        return form(x, HeadParameters._make(p), 0.25, "sum")[:4]

    if case == "dead":
        assert gradcheck(function, inputs)
        if not form.__name__.startswith("registered"):
            assert gradgradcheck(function, inputs)
        return
    # Two messages that equal each other and are not 0 are a kink: the gradient there is finite,
    # and the symmetric one, so that neither is pulled.
    total = torch.stack([value.sum() for value in function(*inputs)]).sum()
    found = torch.autograd.grad(total, inputs, materialize_grads=True)
    assert all(gradient.isfinite().all() for gradient in found)


@REDUCTION
@BIAS
def test_second_derivatives(reduction: Reduction, bias: bool) -> None:
    of, regime = Sizes(N=3, P=4, M=3, D=5, K=2), "small" if bias else "default"
    x, parameters = inputs_for(by_hand, of, bias=bias, regime=regime)

    def function(x: Tensor, *p: Tensor) -> Any:
        return tuple(by_hand(x, HeadParameters._make(p), 0.3, reduction))

    assert gradgradcheck(function, leaves(x, *parameters))


def test_second_derivatives_where_one_input_was_made_of_another() -> None:
    results = []
    for form in (FORMS["reference"], by_hand):
        x, parameters = inputs_for(form, SMALL)
        weight = parameters.decomposition_weight * x.mean()
        output = form(x, parameters._replace(decomposition_weight=weight), 0.25, "sum")
        (first,) = torch.autograd.grad(output[0].square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
        results.append({"first": first, "second": second})
    assert_close("derivative", results[1], results[0])


@REDUCTION
@pytest.mark.parametrize("keep", [True, False])
@BIAS
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_opcheck(reduction: Reduction, keep: bool, bias: bool) -> None:
    x, parameters = inputs_for(registered, SMALL, 14, bias=bias)
    torch.library.opcheck(library.head, (x, *parameters, 0.25, reduction, keep))
    with torch.no_grad():
        *output, distances, product = library.head(x, *parameters, 0.25, reduction, keep)
    held = [None if each is None else each.detach() for each in parameters]
    ups = [normal(*value.shape, seed=i) for i, value in enumerate(output)]
    saved = (*output[2:4], distances, product)
    arguments = (x.detach(), held, *saved, 0.25, reduction, [True, False] * 4 + [True])
    torch.library.opcheck(library.head_backward, (ups, *arguments))
    torch.library.opcheck(library.head_backward, ([None, *ups[1:4], None], *arguments))


@pytest.mark.usefixtures("fresh_compiler")
def test_the_registered_form_compiles_in_one_graph() -> None:
    compiled = torch.compile(registered, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch in (4, 7):
        x, parameters = inputs_for(by_hand, Sizes(batch, P=5, M=3, D=6, K=2))
        assert_close("head", run(compiled, x, parameters), run(by_hand, x, parameters))


@pytest.mark.compile
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize(
    "reduction",
    ["mean", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sum", "share"))],
)
def test_gradients_of_the_compiled_head_are_those_of_the_eager_one(reduction: Reduction) -> None:
    # In float64: a compiler has been seen to get the gradient of a Gram matrix wrong.
    x, parameters = inputs_for(by_hand, Sizes(N=5, P=6, M=9, D=16, K=7), 17, regime="small")
    compiled = torch.compile(by_hand, fullgraph=True)
    want = run(by_hand, x, parameters, 0.25, reduction)
    assert_close("head", run(compiled, x, parameters, 0.25, reduction), want)


def test_the_passes_by_hand_are_what_runs() -> None:
    x, parameters = inputs_for(by_hand, SMALL)
    without = parameters._replace(intra_weight=None, intra_bias=None)
    for form, held in ((by_hand, parameters), (FORMS["reference"], parameters), (head, without)):
        with count_kernels() as kernels:
            form(x, held, 0.25, "sum")
        assert ("_cdist_forward" in kernels) == (form is by_hand)


Trained = tuple[Tensor, dict[str, Tensor]]


def trained(
    of: Sizes, model: nn.Module, criterion: nn.Module, *, batches: int, **options: Any
) -> Trained:
    """The losses of 200 steps, and the weights after them."""
    optimizer = torch.optim.SGD(model.parameters(), **options)
    losses = []
    for step in range(200):
        x = normal(of.N, of.P, seed=step % batches).to(next(model.parameters()))
        total = criterion(model(x), torch.arange(of.N, device=x.device) % of.K).total
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(total.detach())
    assert torch.stack(losses[-batches:]).mean() < torch.stack(losses[:batches]).mean()
    return torch.stack(losses), {k: v.detach() for k, v in model.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_training_follows_the_loop(reduction: Reduction, recompute: bool) -> None:
    of = Sizes(N=16, P=12, M=4, D=8, K=5)
    options: dict[str, Any] = {"latent_dim": of.D, "num_latents": of.M, "reduction": reduction}
    model = FDRLHead(of.P, of.K, recompute=recompute, dtype=torch.float64, **options)
    model.load_state_dict(parameters_for(of, 20))
    loop = LoopHead(of.P, of.K, **options).double()
    loop.load_stacked(model)
    sizes: dict[str, Any] = {"num_latents": of.M, "latent_dim": of.D}
    criterion = FDRLLoss(of.K, **sizes, lambda_balance=0.1, dtype=torch.float64)
    twin, how = copy.deepcopy(criterion), dict[str, Any](batches=20, lr=0.01, momentum=0.9)
    losses, weights = trained(of, model, criterion, **how)
    want, branches = trained(of, loop, twin, **how)
    assert_close("losses", losses, want)
    assert_close("weights", weights, loop.stacked(branches))


@pytest.mark.slow
@pytest.mark.skipif(not KERNELS, reason="needs Triton")
@pytest.mark.parametrize("device", [pytest.param(OF_KERNELS, marks=marks_of(OF_KERNELS))])
def test_training_by_triton_follows_that_by_hand(device: str) -> None:
    of, runs = Sizes(N=4, P=8, M=2, D=32, K=3), []
    for backend, dtype in (("triton", torch.float32), ("torch", torch.float64)):
        given: dict[str, Any] = {"latent_dim": of.D, "num_latents": of.M, "device": device}
        given |= {"dtype": dtype, "backend": backend}
        model = FDRLHead(of.P, of.K, reduction="mean", **given)
        model.load_state_dict(parameters_for(of, 5))
        runs.append(trained(of, model, FDRLLoss(of.K, **given), batches=10, lr=0.05))
    # Two hundred steps carry rounding on.
    torch.testing.assert_close(*runs, rtol=1e-3, atol=1e-4, check_dtype=False)


def test_forms_share_no_storage_that_a_user_may_write_to() -> None:
    x, parameters = inputs_for(by_hand, SMALL)
    for form in FORMS.values():
        places = [value.untyped_storage().data_ptr() for value in form(x, parameters, 0.25, "sum")]
        assert len({*places}) == len(places)
