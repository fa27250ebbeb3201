"""What holds for every layer and for the head alike; `layer_cases.py` lists them."""

import copy
import io
import math
import pickle
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from comparing import assert_close
from devices import each_of, everywhere
from gradients import gradients, upstream, weighted_sum
from layer_cases import CASES, LATENT_AXES, RELATION_WEIGHTS, SMALL, TRACED, LayerCase
from rejecting import SPOILS, spoil
from strategies import PAPER, Sizes, seeds, sizes

CASE, TRACED_CASE = each_of(everywhere(CASES)), each_of(everywhere(TRACED))
CPU_CASE = each_of(CASES)  # for what no device changes, and for many small examples
HALF = (torch.bfloat16, torch.float16)
DTYPES = (torch.float64, torch.float32, *HALF)
DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def learned(case: LayerCase, layer: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The outputs, and as `d NAME` the gradients of a weighted sum of them."""
    outputs = case.run(layer, x)
    found = gradients(outputs, case.inputs(layer, x))
    return outputs | {f"d {name.removeprefix('_orig_mod.')}": d for name, d in found.items()}


def check_same(
    case: LayerCase, layer: nn.Module, other: Any, input: Tensor, other_input: Tensor | None = None
) -> None:
    """Outputs and all gradients of `other`, a twin of `layer` or the layer itself, are its own."""
    twin_input = input.detach().clone() if other_input is None else other_input
    expected = learned(case, layer, input.requires_grad_())
    assert_close("twin", learned(case, other, twin_input.requires_grad_()), expected)


# Shapes


@CASE
@pytest.mark.parametrize("lead", [(), (1,), (0,), (2, 3), (2, 0), (2, 1, 2)], ids=str)
def test_leading_axes(case: LayerCase, lead: tuple[int, ...]) -> None:
    layer = case.loaded()
    x = case.input(lead=lead)
    expected = case.run(layer, x.reshape(-1, *case.shape()))
    for name, output in case.run(layer, x).items():
        assert output.shape[: len(lead)] == lead, name
        assert_close(name, output, expected[name].reshape(*lead, *expected[name].shape[1:]))


@CASE
def test_an_empty_batch_has_zero_gradients(case: LayerCase) -> None:
    layer, x = case.loaded(), case.input(lead=(0,)).requires_grad_()
    found = gradients(case.run(layer, x), case.inputs(layer, x))
    assert found[case.takes].shape == x.shape
    assert not any(gradient.any() for gradient in found.values())


@CASE
@pytest.mark.parametrize("of", [Sizes(3, 4, 1, 5, 2), Sizes(3, 4, 5, 1, 2), Sizes(3, 1, 1, 1, 1)])
def test_single_latents_widths_and_classes(case: LayerCase, of: Sizes) -> None:
    layer, x = case.loaded(of), case.input(of).requires_grad_()
    for name, value in learned(case, layer, x).items():
        assert value.isfinite().all(), name
        if not name.startswith("d "):
            assert value.shape[0] == of.N, name
            assert all(value.shape[axis] == of.M for axis in LATENT_AXES[name]), name


@CASE
@pytest.mark.parametrize("how", ["transposed", "strided", "expanded"])
def test_inputs_that_are_not_contiguous(case: LayerCase, how: str) -> None:
    layer = case.loaded()
    x = case.input(lead=(6,))
    last = x.ndim - 1
    if how == "transposed":
        view = x.transpose(0, last).contiguous().transpose(0, last)
    elif how == "strided":
        view = x.repeat_interleave(2, last)[..., ::2]
    else:
        x = x[:1].repeat(6, *[1] * last)
        view = x[:1].expand(6, *[-1] * last)
    assert not view.is_contiguous()
    check_same(case, layer, layer, x.clone(), view.detach())


# Laws: there are many cases, so each is given fewer examples.

LAW = settings(max_examples=30)


@CPU_CASE
@LAW
@given(of=sizes(min_batch=1), seed=seeds())
def test_law_permuting_the_batch_permutes_outputs(case: LayerCase, of: Sizes, seed: int) -> None:
    layer, x = case.loaded(of, seed), case.input(of, seed)
    order = torch.randperm(of.N, generator=torch.Generator().manual_seed(seed))
    expected = {name: output[order] for name, output in case.run(layer, x).items()}
    assert_close("output", case.run(layer, x[order]), expected)


@CPU_CASE
@LAW
@given(of=sizes(min_batch=2), seed=seeds(), alien=st.sampled_from((1e4, math.inf, math.nan)))
def test_law_no_sample_sees_another(case: LayerCase, of: Sizes, seed: int, alien: float) -> None:
    layer, x = case.loaded(of, seed), case.input(of, seed)
    alone = case.run(layer, x[:1])
    x[1:] = alien
    assert_close("output", {k: v[:1] for k, v in case.run(layer, x).items()}, alone)


@CPU_CASE
@LAW
@given(of=sizes(), seed=seeds())
def test_law_permuting_latents_permutes_their_own(case: LayerCase, of: Sizes, seed: int) -> None:
    layer, x = case.loaded(of, seed), case.input(of, seed)
    order = torch.randperm(of.M, generator=torch.Generator().manual_seed(seed)).to(case.device)
    expected = case.run(layer, x)
    for name, output in expected.items():
        for axis in LATENT_AXES[name]:
            output = output.index_select(axis, order)
        expected[name] = output
    state = layer.state_dict()
    stacked = {k: v[order] for k, v in state.items() if not k.startswith("classifier")}
    layer.load_state_dict(state | stacked)
    permuted = x if case.takes == "input" else x[:, order]
    assert_close("output", case.run(layer, permuted), expected)


# Numbers


@CASE
@pytest.mark.parametrize("dtype", [*DTYPES, "autocast"], ids=str)
def test_types_and_precision(case: LayerCase, dtype: torch.dtype | str) -> None:
    # Of a product with more than 16**3 multiplications in bfloat16 some virtual processors die.
    of = Sizes(N=4, P=8, M=5, D=12, K=3)
    working = torch.bfloat16 if isinstance(dtype, str) else dtype
    x = case.input(of).to(working)
    layer = case.loaded(of).to(working)
    exact = case.run(copy.deepcopy(layer).double(), x.double())
    if dtype == "autocast":
        layer, x = layer.float(), x.float()
    with torch.autocast(case.device, torch.bfloat16, enabled=dtype == "autocast"):
        outputs = case.run(layer, x)
    # A head and an FDN begin with a matrix product. The others are given float32 latents, which
    # Intra-RM only scales; what Inter-RM gives is sums of messages, and they are products.
    keeps = dtype == "autocast" and case.takes == "latents"
    for name, output in outputs.items():
        wide = name in RELATION_WEIGHTS or keeps
        expected = torch.promote_types(working, torch.float32) if wide else working
        assert output.dtype == expected, name
        assert_close(name, output, exact[name], working)


@CASE
@pytest.mark.parametrize(
    ("dtype", "scale"),
    [
        *((dtype, 10.0**k) for dtype in DTYPES[:3] for k in (-4, -2, 2, 4)),
        # float16 ends at 65504. A printed Intra-W multiplies what it is given by up to D.
        *((torch.float16, 10.0**k) for k in (-4, -2, 2)),
    ],
    ids=str,
)
def test_scaled_inputs_stay_finite(case: LayerCase, dtype: torch.dtype, scale: float) -> None:
    layer, x = case.loaded().to(dtype), (scale * case.input()).to(dtype).requires_grad_()
    assert all(value.isfinite().all() for value in learned(case, layer, x).values())


@CASE
def test_deterministic_and_bitwise_the_same_again(case: LayerCase, deterministic: None) -> None:
    layer, x = case.loaded(), case.input().requires_grad_()
    first, again = (learned(case, layer, x) for _ in range(2))
    assert all(torch.equal(value, again[name]) for name, value in first.items())


@pytest.mark.cuda
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_gpu_gives_what_the_cpu_gives(case: LayerCase, dtype: torch.dtype) -> None:
    # At the paper's widths, float32 on a GPU is the kernels' where there is a whole head.
    layer = case.loaded(PAPER).to(dtype)
    x = case.input(PAPER).to(dtype)
    check_same(case, layer, copy.deepcopy(layer).cuda(), x, x.cuda())


# torch.compile, torch.export, torch.func


@TRACED_CASE
def test_compiles(case: LayerCase, fresh_compiler: None) -> None:
    layer = case.loaded()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    check_same(case, layer, compiled, case.input(lead=(4,)))
    with torch.compiler.set_stance("fail_on_recompile"):
        check_same(case, layer, compiled, case.input(lead=(7,), seed=1))


@TRACED_CASE
@pytest.mark.parametrize("strict", [True, False], ids=["strict", "not strict"])
def test_exports_with_a_dynamic_batch(case: LayerCase, strict: bool) -> None:
    layer = case.loaded().eval()
    batch: Any = ({0: torch.export.Dim("N", max=1024)}, *[None for _ in case.arguments])
    program = torch.export.export(
        layer, (case.input(lead=(4,)), *case.arguments), dynamic_shapes=batch, strict=strict
    )
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file)
    for number in (1, 2, 9):
        x = case.input(lead=(number,), seed=number)
        output = loaded.module()(x, *case.arguments)
        assert type(output) is type(layer(x, *case.arguments))
        assert_close("output", case.named(output), case.run(layer, x))


@CASE
def test_vmap_of_gradients_equals_a_loop(case: LayerCase) -> None:
    layer = case.loaded()
    batch = case.input()
    parameters = {name: p.detach() for name, p in layer.named_parameters()}
    weights = upstream(case.run(layer, batch[0]), seed=5)

    def loss(state: dict[str, Tensor], sample: Tensor) -> Tensor:
        output = functional_call(layer, state, (sample, *case.arguments))
        return weighted_sum(case.named(output), weights)

    found = vmap(grad(loss, argnums=(0, 1)), in_dims=(None, 0))(parameters, batch)
    for i, sample in enumerate(batch):
        x = sample.clone().requires_grad_()
        expected = gradients(case.run(layer, x), case.inputs(layer, x), seed=5)
        actual = {case.takes: found[1][i], **{name: g[i] for name, g in found[0].items()}}
        assert_close(f"gradient of sample {i}", actual, expected)


class CountOperators(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


@CPU_CASE
def test_work_and_parts_are_the_same_in_number_for_any_number_of_latents(case: LayerCase) -> None:
    counts, parts = [], []
    for num_latents in (2, 9):
        of = Sizes(N=4, P=5, M=num_latents, D=6, K=3)
        layer, x = case.loaded(of), case.input(of).requires_grad_()
        with CountOperators() as counter:  # type: ignore[no-untyped-call]
            learned(case, layer, x)
        counts.append(counter.count)
        parts.append([[name for name, _ in layer.named_modules()], list(layer.state_dict())])
    assert counts[0] == counts[1]
    assert parts[0] == parts[1]


# Modules


@CASE
@pytest.mark.parametrize("how", ["pickle", "deepcopy", "state_dict"])
def test_copies_compute_the_same(case: LayerCase, how: str) -> None:
    layer = case.loaded()
    twin = case.loaded(seed=1) if how == "state_dict" else copy.deepcopy(layer)
    if how == "pickle":
        twin = pickle.loads(pickle.dumps(layer))
    elif how == "state_dict":
        twin.load_state_dict(layer.state_dict())
    x = case.input()
    outputs = case.run(twin, x)
    assert all(torch.equal(outputs[name], output) for name, output in case.run(layer, x).items())
    assert repr(twin) == repr(layer)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert all(parameter.any() for parameter in layer.parameters())


@CASE
@DTYPE
def test_respects_device_and_dtype(case: LayerCase, dtype: torch.dtype) -> None:
    for device in (case.device, "meta"):
        state = case.new(device=device, dtype=dtype).state_dict()
        assert all((v.device.type, v.dtype) == (device, dtype) for v in state.values())


@CPU_CASE
def test_shows_its_sizes_and_options(case: LayerCase) -> None:
    shown = repr(case.new())
    for name, value in (case.sizes(SMALL) | dict(case.options)).items():
        assert f"{name}={value!r}" in shown


def check_drawn_as_linear(parameter: Tensor, fan_in: int) -> None:
    """Every slice of a stack is drawn from U(-b, b), b = 1 / sqrt(fan_in), and not as another."""
    bound = 1 / math.sqrt(fan_in)
    # A bias has but D numbers; 0.85 ** 64 is one in 30,000, and the seed is fixed.
    reached = bound * (0.99 if parameter[0].numel() > 1000 else 0.85)
    for row in parameter:
        assert row.abs().max() <= bound
        assert row.max() >= reached
        assert row.min() <= -reached
        assert row.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.2)
    assert len(parameter.flatten(1).unique(dim=0)) == len(parameter)


@CASE
@pytest.mark.parametrize("how", ["built", "meta"])
def test_every_slice_is_drawn_as_by_linear(case: LayerCase, how: str, deterministic: None) -> None:
    # `deterministic` fills with NaN what nobody wrote to.
    of = Sizes(N=1, P=100, M=4, D=64, K=48)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if how == "built":
            layer = case.new(of)
        else:
            layer = case.new(of, device="meta").to_empty(device=case.device)
            assert all(parameter.isnan().all() for parameter in layer.parameters())
            layer.reset_parameters()  # type: ignore[operator]
    for name, parameter in layer.named_parameters():
        fan_in = of.P if (case.prefix + name).startswith("decomposition") else of.D
        stack = parameter[None] if name.startswith("classifier") else parameter
        if (case.prefix + name) == "reconstruction.intra.bias":
            assert parameter.unique().numel() == 1  # gates start where Intra-W is uniform
            continue
        check_drawn_as_linear(stack.detach(), fan_in)


def test_the_check_of_slices_can_fail() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        one = nn.Linear(100, 64).weight.detach()
        check_drawn_as_linear(one[None], 100)
        stack = torch.empty(4, 64, 100)
        # The way of nn.Linear, but on three axes it counts 64 * 100 inputs.
        nn.init.kaiming_uniform_(stack, a=math.sqrt(5))
        for wrong in (stack, one.repeat(4, 1, 1)):
            with pytest.raises(AssertionError):
                check_drawn_as_linear(wrong, 100)


# Bad input


@CPU_CASE
@pytest.mark.parametrize(
    ("bad", "error", "match"),
    [
        (0, ValueError, "must be at least 1, got 0"),
        (-2, ValueError, "must be at least 1, got -2"),
        (2.0, TypeError, "must be an integer, got float: 2.0"),
        ("3", TypeError, "must be an integer, got str: '3'"),
        (True, TypeError, "must be an integer, got bool: True"),
        (None, TypeError, "must be an integer, got NoneType: None"),
    ],
)
def test_rejects_sizes(case: LayerCase, bad: Any, error: type[Exception], match: str) -> None:
    for name in case.sizes(SMALL).keys() - {"num_classes"}:
        with pytest.raises(error, match=f"`{name}` {match}"):
            case.new(**{name: bad})


@CASE
@pytest.mark.parametrize("how", SPOILS)
def test_rejects_what_is_no_feature(case: LayerCase, how: str) -> None:
    layer = case.new()
    bad = spoil(how, case.takes, case.input().float())
    # Without parameters there is nothing that a device or a type could differ from.
    fits = how in ("device", "dtype") and not list(layer.parameters())
    with nullcontext() if fits else pytest.raises(bad.error, match=bad.match):
        layer(bad.value, *case.arguments)


@CPU_CASE
def test_rejects_shapes(case: LayerCase) -> None:
    layer = case.new()
    shape = case.shape()
    for bad in (shape[1:], (4, *shape[:-1], shape[-1] + 1), (4, *shape[:-1], 1), (4, 1, shape[-1])):
        if case.takes == "input" and bad[-1:] == shape[-1:]:
            continue
        match = rf"`{case.takes}` must have shape \(\*, .*, got \({', '.join(map(str, bad))},?\)"
        with pytest.raises(ValueError, match=match):
            layer(torch.ones(bad, device=case.device), *case.arguments)
