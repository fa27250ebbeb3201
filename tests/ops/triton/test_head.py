"""The head's kernels, on a GPU or in Triton's interpreter, against the loop in float64."""

from collections.abc import Iterator
from typing import Any, get_args

import pytest
import torch

pytest.importorskip("triton")

from benchmarks import registry
from benchmarks.counting import counted_launches, kernels_of
from comparing import assert_close
from devices import OF_KERNELS as DEVICE, marks_of
from fdrl_layers import FDRLHead, FDRLLoss, use_backend
from fdrl_layers.ops import library
from fdrl_layers.ops.backend import Backend
from fdrl_layers.ops.head import head
from fdrl_layers.ops.reference.head import HeadOutput, HeadParameters, Reduction
from fdrl_layers.ops.triton import head as kernels, plans
from head_forms import expected, inputs_of, run, stacked
from layer_cases import Regime
from strategies import Sizes, normal, parameters_for

pytestmark = marks_of(DEVICE)
SMALL = Sizes(N=5, P=20, M=3, D=32, K=4)
REDUCTION = pytest.mark.parametrize("reduction", get_args(Reduction))
DTYPE = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
LEVEL = pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])


def rounded(of: Sizes, dtype: torch.dtype, **options: Any) -> dict[str, torch.Tensor]:
    """Parameters that `dtype` holds exactly, in float64."""
    return {k: v.to(dtype).double() for k, v in parameters_for(of, 3, **options).items()}


def on_device(parameters: dict[str, torch.Tensor], dtype: torch.dtype) -> HeadParameters:
    moved = {k: v.to(DEVICE) for k, v in parameters.items()}
    return stacked(moved, dtype)


def check(
    of: Sizes,
    dtype: torch.dtype = torch.float32,
    *,
    parameters: dict[str, torch.Tensor] | None = None,
    delta: float = 0.25,
    reduction: Reduction = "sum",
    recompute: bool = False,
) -> None:
    parameters = rounded(of, dtype) if parameters is None else parameters
    x = normal(of.N, of.P, seed=2).to(dtype)

    def form(*arguments: Any) -> HeadOutput:
        return head(*arguments, backend="triton", recompute=recompute)

    leaf = x.to(DEVICE).requires_grad_()
    actual = run(form, leaf, on_device(parameters, dtype), delta, reduction)
    for name, want in expected(of, x, parameters, delta, reduction).items():
        # A gradient passes twice as many roundings as a value, and its upstream is rounded too.
        large = 3 * want.abs().max().item() if name[:2] == "d " and want.numel() else 0.0
        half = dtype != torch.float32
        assert_close(name, actual[name], want, dtype, scale=large if half else 0.0)


@DTYPE
@REDUCTION
@LEVEL
def test_matches_the_loop(dtype: torch.dtype, reduction: Reduction, recompute: bool) -> None:
    check(SMALL, dtype, reduction=reduction, recompute=recompute)


@pytest.mark.parametrize("batch", [0, 1, 2, pytest.param(37, marks=pytest.mark.slow)])
@pytest.mark.parametrize("regime", get_args(Regime))
@LEVEL
def test_batches_and_regimes(batch: int, regime: Regime, recompute: bool) -> None:
    of = Sizes(batch, 20, 3, 32, 4)
    parameters = rounded(of, torch.float32, regime=regime)
    check(of, parameters=parameters, recompute=recompute)


@pytest.mark.parametrize(
    "of", [Sizes(3, 7, 1, 32, 1), Sizes(2, 33, 16, 32, 23), Sizes(2, 16, 2, 256, 3)], ids=str
)
@pytest.mark.parametrize("delta", [0.0, 1.0])
def test_odd_sizes(of: Sizes, delta: float) -> None:
    check(of, delta=delta)


@pytest.mark.slow
@pytest.mark.parametrize("regime", get_args(Regime))
def test_paper_sizes(regime: Regime) -> None:
    of = Sizes(2, 512, 9, 128, 7)
    check(of, parameters=rounded(of, torch.float32, regime=regime), delta=0.5)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "bare"])
@pytest.mark.parametrize("classifier", [True, False], ids=["classified", "bare"])
def test_parts_may_be_missing(bias: bool, classifier: bool) -> None:
    parameters = rounded(SMALL, torch.float32, bias=bias)
    if not classifier:
        parameters = {k: v for k, v in parameters.items() if not k.startswith("classifier")}
    x = normal(SMALL.N, SMALL.P, seed=2)
    results = []
    for backend, dtype in (("triton", torch.float32), ("torch", torch.float64)):

        def form(*arguments: Any, backend: Any = backend) -> HeadOutput:
            return head(*arguments, backend=backend)

        leaf = x.to(DEVICE, dtype).requires_grad_()
        results.append(run(form, leaf, on_device(parameters, dtype)))
    assert_close("head", results[0], results[1])


@pytest.mark.parametrize("missing", range(5), ids=HeadOutput._fields)
def test_any_upstream_gradient_may_be_missing(missing: int) -> None:
    results = []
    for backend, dtype in (("triton", torch.float32), ("torch", torch.float64)):
        parameters = on_device(rounded(SMALL, torch.float32), dtype)
        leaf = normal(SMALL.N, SMALL.P, seed=3).to(DEVICE, dtype).requires_grad_()
        outputs = head(leaf, parameters, 0.25, "sum", backend=backend)  # type: ignore[arg-type]
        kept = [value for i, value in enumerate(outputs) if i != missing and value is not None]
        ups = [normal(*v.shape, seed=i).to(DEVICE, v.dtype) for i, v in enumerate(kept)]
        named = inputs_of(leaf, parameters)
        found = torch.autograd.grad(kept, list(named.values()), ups, materialize_grads=True)
        results.append(dict(zip(named, found, strict=True)))
    assert_close("gradient", results[0], results[1])


@pytest.mark.parametrize("case", ["dead", "coincident"])
def test_messages_that_are_dead_or_coincide(case: str) -> None:
    parameters = rounded(SMALL, torch.float32, regime="small")
    parameters["reconstruction.inter.weight"][:2] = 0
    parameters["reconstruction.inter.bias"][:2] = -1 if case == "dead" else 0.5
    x = normal(SMALL.N, SMALL.P, seed=2)
    results = []
    for backend, dtype in (("triton", torch.float32), ("torch", torch.float64)):

        def form(*arguments: Any, backend: Any = backend) -> HeadOutput:
            return head(*arguments, backend=backend)

        leaf = x.to(DEVICE, dtype).requires_grad_()
        results.append(run(form, leaf, on_device(parameters, dtype)))
    assert not results[0]["inter_weights"][:, 0, 1].any()
    assert_close("head", results[0], results[1])


def test_strided_and_expanded_inputs_and_gradients() -> None:
    parameters = on_device(rounded(SMALL, torch.float32), torch.float32)
    wide = normal(SMALL.N, 2 * SMALL.P, seed=9).float().to(DEVICE)
    for x in (wide[:, ::2], wide[:1, : SMALL.P].expand(SMALL.N, -1)):
        results = []
        for leaf in (x.contiguous(), x):
            leaf = leaf.detach().requires_grad_()
            outputs = head(leaf, parameters, 0.25, "sum", backend="triton")
            total = torch.stack([v.sum() for v in outputs if v is not None]).sum()
            inputs = inputs_of(leaf, parameters)
            found = torch.autograd.grad(total, list(inputs.values()))
            results.append(dict(zip(inputs, found, strict=True)))
        for name, gradient in results[0].items():
            assert torch.equal(gradient, results[1][name]), name


def test_parameters_in_float32_under_features_in_bfloat16() -> None:
    # As autocast has it: products in bfloat16, gradients of parameters in float32.
    parameters = rounded(SMALL, torch.bfloat16)
    single = on_device(parameters, torch.float32)
    x = normal(SMALL.N, SMALL.P, seed=2).bfloat16()
    with torch.autocast(DEVICE, torch.bfloat16):
        leaf = x.float().to(DEVICE).requires_grad_()
        outputs = head(leaf, single, 0.25, "sum", backend="triton")
    assert (outputs.logits.dtype, outputs.intra_weights.dtype) == (torch.bfloat16, torch.float32)
    total = torch.stack([v.float().sum() for v in outputs if v is not None]).sum()
    named = inputs_of(leaf, single)
    found = dict(zip(named, torch.autograd.grad(total, list(named.values())), strict=True))
    exact = on_device(parameters, torch.float64)
    leaf = x.double().to(DEVICE).requires_grad_()
    outputs = head(leaf, exact, 0.25, "sum", backend="torch")
    total = torch.stack([v.sum() for v in outputs if v is not None]).sum()
    named = inputs_of(leaf, exact)
    for name, want in zip(named, torch.autograd.grad(total, list(named.values())), strict=True):
        assert found[name].dtype == torch.float32
        scale = 3 * want.abs().max().item()
        assert_close(name, found[name], want, torch.bfloat16, scale=scale)


@pytest.mark.parametrize("only", ["input", *HeadParameters._fields])
def test_what_wants_no_gradient_gets_none(only: str) -> None:
    parameters = on_device(rounded(SMALL, torch.float32), torch.float32)
    x = normal(SMALL.N, SMALL.P, seed=7).float().to(DEVICE).requires_grad_()

    def form(*arguments: Any) -> HeadOutput:
        return head(*arguments, backend="triton")

    everything = run(form, x, parameters)[f"d {only}"]
    named = inputs_of(x, parameters)
    for name, tensor in named.items():
        tensor.requires_grad_(name == only)
    outputs = form(x, parameters, 0.25, "sum")
    values = [value for value in outputs if value is not None]
    ups = [2 * normal(*value.shape, seed=i).to(value) for i, value in enumerate(values)]
    total = torch.stack([(u * v).sum() for u, v in zip(ups, values, strict=True)]).sum()
    (gradient,) = torch.autograd.grad(total, named[only])
    assert torch.equal(gradient, everything)


@pytest.fixture
def products_by_cublas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "ONE_LAUNCH_LIMIT", 0)


@DTYPE
@pytest.mark.usefixtures("products_by_cublas")
def test_the_way_of_large_batches(dtype: torch.dtype) -> None:
    check(SMALL, dtype)


@pytest.mark.parametrize("width", [32, 128])
@pytest.mark.parametrize("num_latents", [4, 5])
def test_lanes_of_large_batches(
    width: int, num_latents: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Several samples a warp, the last program of which has rows beyond the batch.
    monkeypatch.setattr(plans, "lanes", lambda *_: plans.Lanes(256 // width, 8, 1))
    # Which remembers what it made of other lanes.
    monkeypatch.setattr(kernels, "plan_launches", plans.plan_launches.__wrapped__)
    check(Sizes(3, 20, num_latents, width, 4))


@LEVEL
@REDUCTION
def test_reads_nothing_unwritten_and_gives_the_same_bits_again(
    recompute: bool, reduction: Reduction, deterministic: Iterator[None]
) -> None:
    # `deterministic` fills empty tensors with NaN.
    parameters = on_device(rounded(SMALL, torch.float32), torch.float32)
    x = normal(SMALL.N, SMALL.P, seed=11).float().to(DEVICE).requires_grad_()

    def form(*arguments: Any) -> HeadOutput:
        return head(*arguments, backend="triton", recompute=recompute)

    first, second = (run(form, x, parameters, 0.25, reduction) for _ in range(2))
    for name, value in first.items():
        assert value.isfinite().all(), name
        assert torch.equal(value, second[name]), name


def test_second_derivatives_are_those_of_the_reference() -> None:
    results = []
    for backend, dtype in (("triton", torch.float32), ("torch", torch.float64)):
        parameters = on_device(rounded(SMALL, torch.float32, regime="small"), dtype)
        x = normal(SMALL.N, SMALL.P, seed=3).to(DEVICE, dtype).requires_grad_()
        output = head(x, parameters, 0.25, "sum", backend=backend)  # type: ignore[arg-type]
        (first,) = torch.autograd.grad(output.logits.square().sum(), x, create_graph=True)
        results.append(torch.autograd.grad(first.square().sum(), x)[0])
    assert_close("second", results[0], results[1])


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_opcheck(keep: bool) -> None:
    parameters = on_device(rounded(SMALL, torch.float32), torch.float32)
    x = normal(SMALL.N, SMALL.P, seed=15).float().to(DEVICE).requires_grad_()
    torch.library.opcheck(library.head, (x, *parameters, 0.25, "sum", keep))


@pytest.mark.usefixtures("fresh_compiler")
def test_compiles_in_one_graph() -> None:
    model = FDRLHead(SMALL.P, SMALL.K, latent_dim=SMALL.D, num_latents=SMALL.M, device=DEVICE)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = normal(SMALL.N, SMALL.P, seed=4).float().to(DEVICE)
    with use_backend("triton"):
        eager, traced = model(x), compiled(x)
        eager.logits.square().sum().backward()
        want = {name: p.grad for name, p in model.named_parameters()}
        model.zero_grad()
        traced.logits.square().sum().backward()
    assert torch.equal(eager.logits, traced.logits)
    assert_close("gradient", {n: p.grad for n, p in model.named_parameters()}, want)


@pytest.mark.slow
def test_training_follows_the_loop() -> None:
    of = Sizes(N=4, P=8, M=2, D=32, K=3)
    options: dict[str, Any] = {"latent_dim": of.D, "num_latents": of.M, "reduction": "mean"}
    forms: tuple[tuple[Backend, torch.dtype], ...]
    forms = (("triton", torch.float32), ("torch", torch.float64))
    runs = []
    for backend, dtype in forms:
        model = FDRLHead(of.P, of.K, backend=backend, device=DEVICE, dtype=dtype, **options)
        model.load_state_dict(parameters_for(of, 5))
        criterion = FDRLLoss(
            of.K, num_latents=of.M, latent_dim=of.D, backend=backend, device=DEVICE, dtype=dtype
        )
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        losses = []
        for step in range(200):
            x = normal(of.N, of.P, seed=step % 10).to(DEVICE, dtype)
            total = criterion(model(x), torch.arange(of.N, device=DEVICE) % of.K).total
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            losses.append(total.detach().double())
        runs.append((torch.stack(losses), {k: v.double() for k, v in model.state_dict().items()}))
    assert runs[0][0][-10:].mean() < runs[0][0][:10].mean()
    # Two hundred steps carry rounding on.
    torch.testing.assert_close(runs[0][0], runs[1][0], rtol=1e-3, atol=1e-4)
    for name, weight in runs[0][1].items():
        torch.testing.assert_close(weight, runs[1][1][name], rtol=1e-3, atol=1e-4)


def test_two_launches_forward_and_three_backward() -> None:
    parameters = on_device(rounded(SMALL, torch.float32), torch.float32)
    x = normal(SMALL.N, SMALL.P, seed=4).float().to(DEVICE).requires_grad_()
    with counted_launches() as names:
        output = head(x, parameters, 0.25, "sum", backend="triton")
        assert names == ["branch_forward", "relation_forward"]
        output.logits.sum().backward()
    assert names[2:] == ["relation_backward", "branch_backward", "parameter_gradients"]


def test_a_training_step_is_12_kernels() -> None:
    sizes = registry.Sizes(N=4, P=8, M=2, D=32, K=3)
    version = next(each for each in registry.VERSIONS if each.name == "triton")
    step = registry.build(version, sizes, "training", DEVICE)
    for _ in range(2):
        step.run()  # until every center has met data
    assert kernels_of(step.run) <= 12


@pytest.mark.parametrize("batch", [1, 129, 513, 70000])
@pytest.mark.parametrize("width", [32, 64, 128, 256])
def test_blocks_are_powers_of_two_that_products_take(batch: int, width: int) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        size = plans.blocks(batch, width, dtype)
        assert size.samples in (16, 32, 64)
        assert size.terms in (16, 32, 64)
        assert width % size.terms == 0
