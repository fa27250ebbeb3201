"""Every form of the head against the loop over branches; tests/test_head.py has the oracle."""

import copy
import itertools
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from comparing import assert_close
from devices import AVAILABLE, marks_of
from fdrl_layers import FDRLHead, FDRLLoss
from fdrl_layers.ops import library
from fdrl_layers.ops.head import head
from fdrl_layers.ops.reference.head import HeadOutput, HeadParameters, Reduction
from gradients import leaves, upstream, weighted_sum
from head_forms import FORMS, Form, by_hand, expected, inputs_of, placed, registered, run, stacked
from layer_cases import Regime
from loop_head import LoopHead
from strategies import PAPER, Sizes, normal, parameters_for

FORM = pytest.mark.parametrize(
    "form",
    [
        pytest.param(
            form if device == "cpu" else placed(form, device),
            id=name if device == "cpu" else f"{name}, {device}",
            marks=marks_of(device),
        )
        for device in AVAILABLE
        for name, form in FORMS.items()
    ],
)
REDUCTION = pytest.mark.parametrize("reduction", get_args(Reduction))
REGIME = pytest.mark.parametrize("regime", get_args(Regime))
SMALL = Sizes(N=4, P=5, M=3, D=6, K=2)


@FORM
@REDUCTION
@REGIME
@pytest.mark.parametrize("batch", [0, 1, 2, 37, 64])
def test_matches_the_loop(form: Form, reduction: Reduction, regime: Regime, batch: int) -> None:
    of = Sizes(N=batch, P=5, M=3, D=7, K=4)
    parameters, x = parameters_for(of, 1, regime=regime), normal(batch, of.P, seed=2)
    actual = run(form, x.requires_grad_(), stacked(parameters), 0.25, reduction)
    assert_close("head", actual, expected(of, x, parameters, 0.25, reduction))


@pytest.mark.parametrize(
    "form",
    [
        # Without a GPU what is registered runs in Triton's interpreter, fifty times as long.
        pytest.param(form, id=name, marks=[pytest.mark.slow] * ("registered" in name))
        for name, form in FORMS.items()
    ],
)
@REGIME
def test_matches_the_loop_at_paper_sizes(form: Form, regime: Regime) -> None:
    parameters, x = parameters_for(PAPER, 0, regime=regime), normal(PAPER.N, PAPER.P, seed=1)
    want = expected(PAPER, x, parameters, 0.5)
    assert_close("head", run(form, x.requires_grad_(), stacked(parameters), 0.5), want)
    single = run(form, x.detach().float().requires_grad_(), stacked(parameters, torch.float32), 0.5)
    assert_close("head in float32", single, want)


@FORM
@pytest.mark.parametrize("of", [Sizes(3, 4, 1, 5, 2), Sizes(3, 1, 4, 1, 1), Sizes(5, 9, 16, 3, 11)])
@pytest.mark.parametrize("delta", [0.0, 0.5, 1.0])
def test_matches_the_loop_at_odd_sizes(form: Form, of: Sizes, delta: float) -> None:
    parameters, x = parameters_for(of, 3), normal(of.N, of.P, seed=2)
    actual = run(form, x.requires_grad_(), stacked(parameters), delta)
    assert_close("head", actual, expected(of, x, parameters, delta))


@FORM
@REDUCTION
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_types(form: Form, reduction: Reduction, dtype: torch.dtype) -> None:
    # Of a product with more than 16**3 multiplications in bfloat16 some virtual processors die.
    of = Sizes(N=4, P=8, M=3, D=12, K=3)
    parameters = {k: v.to(dtype).double() for k, v in parameters_for(of, 4).items()}
    x = normal(of.N, of.P, seed=5).to(dtype).requires_grad_()
    actual = run(form, x, stacked(parameters, dtype), 0.25, reduction)
    for name, want in expected(of, x, parameters, 0.25, reduction).items():
        wide = name in ("intra_weights", "inter_weights")
        assert actual[name].dtype == (torch.float32 if wide else dtype), name
        # A gradient passes twice as many roundings as a value, and its upstream is rounded too.
        scale = 3 * want.abs().max().item() if dtype != torch.float32 else 0.0
        assert_close(name, actual[name], want, dtype, scale=scale if name[:2] == "d " else 0.0)


@FORM
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "bare"])
@pytest.mark.parametrize("missing", range(5), ids=HeadOutput._fields)
def test_any_upstream_gradient_may_be_missing(form: Form, bias: bool, missing: int) -> None:
    parameters, x = parameters_for(SMALL, 6, bias=bias), normal(SMALL.N, SMALL.P, seed=7)
    results = []
    for each in (FORMS["reference"], form):
        twins, leaf = stacked(parameters), x.clone().requires_grad_()
        outputs = each(leaf, twins, 0.25, "sum")
        kept = [value for i, value in enumerate(outputs) if i != missing]
        ups = [normal(*v.shape, seed=i, device=v.device) for i, v in enumerate(kept)]
        named = inputs_of(leaf, twins)
        found = torch.autograd.grad(kept, list(named.values()), ups, materialize_grads=True)
        results.append(dict(zip(named, found, strict=True)))
    assert_close("gradient", results[1], results[0])


@FORM
@pytest.mark.parametrize("only", ["input", *HeadParameters._fields])
def test_what_wants_no_gradient_gets_none(form: Form, only: str) -> None:
    parameters = stacked(parameters_for(SMALL, 6))
    x = normal(SMALL.N, SMALL.P, seed=7).requires_grad_()
    everything = run(form, x, parameters)[f"d {only}"]
    named = inputs_of(x, parameters)
    for name, tensor in named.items():
        tensor.requires_grad_(name == only)
    outputs = form(x, parameters, 0.25, "sum")
    full = dict(zip(HeadOutput._fields, outputs, strict=True))
    total = weighted_sum(full, upstream(full))
    assert_close(only, torch.autograd.grad(total, named[only])[0], everything)


@FORM
def test_strided_and_expanded_inputs_and_gradients(form: Form) -> None:
    parameters = stacked(parameters_for(SMALL, 8))
    wide = normal(SMALL.N, 2 * SMALL.P, seed=9)
    for x in (wide[:, ::2], wide[:1, : SMALL.P].expand(SMALL.N, -1), wide.t()[::2].t()):
        results = []
        for leaf in (x.contiguous(), x):
            leaf = leaf.detach().requires_grad_()
            outputs = form(leaf, parameters, 0.25, "sum")
            total = torch.stack([value.sum() for value in outputs]).sum()  # zero-stride upstream
            inputs = inputs_of(leaf, parameters)
            found = torch.autograd.grad(total, list(inputs.values()))
            results.append(dict(zip(inputs, found, strict=True)))
        assert_close("gradient", results[1], results[0])


@FORM
@REDUCTION
@pytest.mark.usefixtures("deterministic")
def test_reads_nothing_unwritten_and_gives_the_same_bits_again(
    form: Form, reduction: Reduction
) -> None:
    # `deterministic` fills empty tensors with NaN.
    parameters = stacked(parameters_for(SMALL, 10))
    x = normal(SMALL.N, SMALL.P, seed=11).requires_grad_()
    first, second = (run(form, x, parameters, 0.25, reduction) for _ in range(2))
    for name, value in first.items():
        assert value.isfinite().all(), name
        assert torch.equal(value, second[name]), name


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
    x = normal(of.N, of.P, seed=13).requires_grad_()
    fixed = "reconstruction.inter.bias"
    names = [name for name in parameters if case == "dead" or name != fixed]
    held = stacked(parameters)
    index = [list(parameters).index(name) for name in names]
    chosen: list[Any] = [held[i] for i in index]

    def function(x: Tensor, *some: Tensor) -> tuple[Tensor, ...]:
        p = list(held)
        for i, tensor in zip(index, some, strict=True):
            p[i] = tensor
        logits, embedding, latents, intra_weights, _ = form(x, HeadParameters._make(p), 0.25, "sum")
        return logits, embedding, latents, intra_weights

    if case == "dead":
        assert gradcheck(function, (x, *chosen))
        if not form.__name__.startswith("registered"):
            assert gradgradcheck(function, (x, *chosen))
        return
    # Two messages that equal each other and are not 0 are a kink: the gradient there is finite,
    # and the symmetric one, so that neither is pulled.
    total = torch.stack([value.sum() for value in function(x, *chosen)]).sum()
    reached = [x, *(tensor for tensor in held[:5] if tensor is not None)]
    found = torch.autograd.grad(total, reached, materialize_grads=True)
    assert all(gradient.isfinite().all() for gradient in found)


@REDUCTION
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "bare"])
def test_second_derivatives(reduction: Reduction, bias: bool) -> None:
    of = Sizes(N=3, P=4, M=3, D=5, K=2)
    parameters = stacked(parameters_for(of, 0, bias=bias, regime="small" if bias else "default"))
    present = [p for p in parameters if p is not None]

    def function(x: Tensor, *some: Tensor) -> tuple[Any, ...]:
        rest = iter(some)
        p = HeadParameters._make(None if each is None else next(rest) for each in parameters)
        return tuple(by_hand(x, p, 0.3, reduction))

    x = normal(of.N, of.P, seed=3).requires_grad_()
    assert gradgradcheck(function, (x, *leaves(*present)))


def test_second_derivatives_where_one_input_was_made_of_another() -> None:
    parameters = stacked(parameters_for(SMALL, 0))
    results = []
    for form in (FORMS["reference"], by_hand):
        x = normal(SMALL.N, SMALL.P, seed=3).requires_grad_()
        weight = parameters.decomposition_weight * x.mean()
        output = form(x, parameters._replace(decomposition_weight=weight), 0.25, "sum")
        (first,) = torch.autograd.grad(output[0].square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
        results.append((first.detach(), second))
    assert_close("first", results[1][0], results[0][0])
    assert_close("second", results[1][1], results[0][1])


@REDUCTION
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "bare"])
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_opcheck(reduction: Reduction, keep: bool, bias: bool) -> None:
    parameters = stacked(parameters_for(SMALL, 14, bias=bias))
    x = normal(SMALL.N, SMALL.P, seed=15).requires_grad_()
    torch.library.opcheck(library.head, (x, *parameters, 0.25, reduction, keep))
    *output, distances, product = library.head(x, *parameters, 0.25, reduction, keep)
    detached = [None if p is None else p.detach() for p in parameters]
    ups = [normal(*value.shape, seed=i) for i, value in enumerate(output)]
    arguments = (
        x.detach(),
        detached,
        output[2].detach(),
        output[3].detach(),
        distances.detach(),
        product.detach(),
        0.25,
        reduction,
        [True, False] * 4 + [True],
    )
    torch.library.opcheck(library.head_backward, (ups, *arguments))
    torch.library.opcheck(library.head_backward, ([None, *ups[1:4], None], *arguments))


@pytest.mark.usefixtures("fresh_compiler")
def test_the_registered_form_compiles_in_one_graph() -> None:
    parameters = stacked(parameters_for(SMALL, 16))
    compiled = torch.compile(registered, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch in (4, 7):
        x = normal(batch, SMALL.P, seed=batch).requires_grad_()
        assert_close("head", run(compiled, x, parameters), run(by_hand, x, parameters))


@pytest.mark.compile
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize(
    "reduction",
    [
        "mean",
        pytest.param("sum", marks=pytest.mark.slow),
        pytest.param("share", marks=pytest.mark.slow),
    ],
)
def test_gradients_of_the_compiled_head_are_those_of_the_eager_one(reduction: Reduction) -> None:
    # In float64: a compiler has been seen to get the gradient of a Gram matrix wrong.
    of = Sizes(N=5, P=6, M=9, D=16, K=7)
    parameters = stacked(parameters_for(of, 17, regime="small"))
    compiled = torch.compile(by_hand, fullgraph=True)
    x = normal(of.N, of.P, seed=18).requires_grad_()
    want = run(by_hand, x, parameters, 0.25, reduction)
    assert_close("head", run(compiled, x, parameters, 0.25, reduction), want)


class Operators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_the_passes_by_hand_are_what_runs() -> None:
    parameters, x = stacked(parameters_for(SMALL, 19)), normal(SMALL.N, SMALL.P, seed=1)
    for form, runs in ((by_hand, True), (FORMS["reference"], False)):
        with Operators() as operators:
            form(x, parameters, 0.25, "sum")
        assert ("aten._cdist_forward.default" in operators.names) == runs
    with Operators() as operators:
        head(x, parameters._replace(intra_weight=None, intra_bias=None), 0.25, "sum")
    assert "aten._cdist_forward.default" not in operators.names


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
    criterion = FDRLLoss(
        of.K, num_latents=of.M, latent_dim=of.D, lambda_balance=0.1, dtype=torch.float64
    )
    runs = []
    for each, loss in ((model, criterion), (loop, copy.deepcopy(criterion))):
        optimizer = torch.optim.SGD(each.parameters(), lr=0.01, momentum=0.9)
        losses = []
        for step in range(200):
            x = normal(of.N, of.P, seed=step % 20)
            total = loss(each(x), torch.arange(of.N) % of.K).total
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            losses.append(total.detach())
        weights = dict(each.named_parameters())
        rows = loop.stacked(weights) if each is loop else weights
        runs.append((torch.stack(losses), {k: v.detach() for k, v in rows.items()}))
    assert_close("losses", runs[0][0], runs[1][0])
    assert_close("weights", runs[0][1], runs[1][1])
    first, last = runs[0][0][:20].mean(), runs[0][0][-20:].mean()
    assert last < first


def test_forms_share_no_storage_that_a_user_may_write_to() -> None:
    parameters, x = stacked(parameters_for(SMALL, 21)), normal(SMALL.N, SMALL.P, seed=1)
    for form in FORMS.values():
        outputs = [value for value in form(x, parameters, 0.25, "sum") if value is not None]
        for a, b in itertools.combinations(outputs, 2):
            assert a.untyped_storage().data_ptr() != b.untyped_storage().data_ptr()
