import subprocess
import sys
from dataclasses import replace
from functools import partial
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

import oracles
from comparing import assert_close
from devices import ROOT
from fdrl_layers import FDRLHead, FDRLOutput
from fdrl_layers.functional import balance_loss, fdrl_head
from fdrl_layers.layers import Reduction, SelfFeature
from fdrl_layers.ops.reference.head import HeadParameters
from gradients import gradients, leaves
from layer_cases import SMALL, Regime, regimes
from loop_head import LoopHead
from rejecting import SPOILS, spoil
from strategies import (
    PAPER,
    SMALL_INTRA_W,
    Sizes,
    arguments_of,
    normal,
    oracle_arguments,
    parameters_for,
    scales,
    seeds,
    sizes,
)

REDUCTION = pytest.mark.parametrize("reduction", get_args(Reduction))
RELATIONS = {
    "FDN": {"intra": False, "inter": False},
    "FDN+intra": {"intra": True, "inter": False},
    "FDN+inter": {"intra": False, "inter": True},
    "FDN+intra+inter": {"intra": True, "inter": True},
}
TABLE_2 = pytest.mark.parametrize("has", RELATIONS.values(), ids=RELATIONS)
SIZES: dict[str, Any] = {"latent_dim": 6, "num_latents": 3}
KEYS = HeadParameters._fields
SHAPES = ((4, 3, 5), (4, 3), *((4, 3, 3), (4, 3)) * 2, (7, 3), (7,))
GOOD: dict[str, Any] = {"input": torch.ones(2, 5)}
GOOD |= {name: torch.ones(shape) for name, shape in zip(KEYS, SHAPES, strict=True)}


def drawn(**options: Any) -> FDRLHead:
    """A new head of the paper's sizes, from seed 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return FDRLHead(512, 7, **options)


def fields(output: Any) -> dict[str, Any]:
    """The fields of an output, the package's or the oracle's, without a missing Inter-W."""
    return {name: value for name, value in vars(output).items() if value is not None}


def check_against_oracle(x: Tensor, parameters: dict[str, Tensor], **options: Any) -> FDRLOutput:
    actual = fdrl_head(x, **arguments_of(parameters), **options)
    expected = oracles.fdrl_head(x.numpy(), **oracle_arguments(parameters), **options)
    assert_close("head", fields(actual), fields(expected))
    return actual


@TABLE_2
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "bare"])
@given(data=st.data(), of=sizes(), seed=seeds(), scale=scales(), delta=st.floats(0, 1))
def test_matches_oracle(
    data: Any, of: Sizes, seed: int, scale: float, delta: float, bias: bool, has: dict[str, Any]
) -> None:
    self_features = get_args(SelfFeature) if has["inter"] else ("intra",)
    options = {
        "delta": delta,
        "reduction": data.draw(st.sampled_from(get_args(Reduction))),
        "self_feature": data.draw(st.sampled_from(self_features)),
    }
    regime = data.draw(regimes(both=bias and has["intra"]))
    parameters = parameters_for(of, seed, bias=bias, regime=regime, **has)
    check_against_oracle(normal(of.N, of.P, seed=seed + 1, scale=scale), parameters, **options)


@pytest.mark.parametrize("self_feature", get_args(SelfFeature))
@pytest.mark.parametrize(("regime", "about"), [("default", 64.0), ("small", SMALL_INTRA_W)])
def test_matches_oracle_at_paper_sizes(regime: Regime, about: float, self_feature: Any) -> None:
    x, parameters = normal(PAPER.N, PAPER.P, seed=1), parameters_for(PAPER, 0, regime=regime)
    output = check_against_oracle(x, parameters, self_feature=self_feature)
    assert output.intra_weights.mean().item() == pytest.approx(about, rel=0.1)
    assert output.inter_weights is not None
    others = output.inter_weights[:, ~torch.eye(PAPER.M, dtype=torch.bool)]
    if regime == "default":
        assert (others == 1).all()
    else:
        assert 0.2 < others.min() < others.max() < 0.9


@TABLE_2
@REDUCTION
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "bare"])
@pytest.mark.parametrize("num_classes", [7, 0])
def test_module_equals_function(num_classes: int, bias: bool, reduction: str, has: Any) -> None:
    options: dict[str, Any] = {"delta": 0.25, "reduction": reduction}
    head = FDRLHead(5, num_classes, **SIZES, **has, bias=bias, **options)
    x = normal(4, 5, seed=0, dtype=torch.float32)
    expected = fields(fdrl_head(x, **arguments_of(dict(head.named_parameters())), **options))
    actual = fields(head(x))
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_the_paper_is_the_default() -> None:
    head = FDRLHead(512, 7)
    assert (head.reconstruction.delta, head.reconstruction.reduction) == (0.5, "sum")
    assert head.reconstruction.gate_init == "uniform"
    assert head.reconstruction.self_feature == "intra"
    assert shapes_of(head) == golden(PAPER)
    x, parameters = normal(4, 5, seed=0), arguments_of(parameters_for(SMALL, 0))
    expected = fdrl_head(x, **parameters, delta=0.5, reduction="sum", self_feature="intra")
    assert torch.equal(fdrl_head(x, **parameters).logits, expected.logits)
    message = fdrl_head(x, **parameters, self_feature="message")
    assert not torch.allclose(message.embedding, expected.embedding, rtol=0.1)


TINY = Sizes(N=2, P=2, M=3, D=2, K=2)


def all_of(*inputs: Tensor, **options: Any) -> tuple[Tensor, ...]:
    return tuple(fields(fdrl_head(*inputs, **options)).values())


@TABLE_2
def test_gradcheck(has: dict[str, Any]) -> None:
    parameters = arguments_of(parameters_for(TINY, 3, **has))
    inputs = leaves(normal(TINY.N, TINY.P, seed=3), *(parameters.get(key) for key in KEYS))
    assert gradcheck(partial(all_of, delta=0.3), inputs)


@REDUCTION
def test_gradgradcheck(reduction: Reduction) -> None:
    parameters = parameters_for(TINY, 3).values()
    inputs = leaves(normal(1, TINY.P, seed=3), *parameters)
    assert gradgradcheck(partial(all_of, reduction=reduction), inputs)


Shapes = dict[str, tuple[int, ...]]


def shapes_of(head: FDRLHead) -> Shapes:
    return {key: tuple(value.shape) for key, value in head.state_dict().items()}


def golden(of: Sizes, intra: bool = True, inter: bool = True, bias: bool = True) -> Shapes:
    """The keys of a head and the shapes under them: API, so a change here breaks checkpoints."""
    weights: Shapes = {
        "decomposition.weight": (of.M, of.D, of.P),
        "reconstruction.intra.weight": (of.M, of.D, of.D) if intra else (),
        "reconstruction.inter.weight": (of.M, of.D, of.D) if inter else (),
        "classifier.weight": (of.K, of.D) if of.K else (),
    }
    present = {name: shape for name, shape in weights.items() if shape}
    biases: Shapes = {name.replace("weight", "bias"): shape[:-1] for name, shape in present.items()}
    return present | biases if bias else present


@TABLE_2
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "bare"])
@pytest.mark.parametrize("num_classes", [2, 0])
def test_golden_state_dict(has: dict[str, Any], bias: bool, num_classes: int) -> None:
    head = FDRLHead(5, num_classes, **SIZES, **has, bias=bias)
    shapes = golden(replace(SMALL, K=num_classes), bias=bias, **has)
    assert shapes_of(head) == shapes
    assert {key for key, _ in head.named_parameters()} == set(shapes)


def test_without_classes_there_is_no_classifier() -> None:
    head = FDRLHead(5, 0, **SIZES)
    output = head(normal(4, 5, seed=0, dtype=torch.float32))
    assert head.classifier is None
    assert output.logits.shape == (4, 0)
    assert output.logits.dtype == output.embedding.dtype


@pytest.mark.parametrize("how", SPOILS)
@pytest.mark.parametrize("name", GOOD)
def test_rejects_what_is_no_feature(name: str, how: str) -> None:
    bad = spoil(how, name, GOOD[name])
    with pytest.raises(bad.error, match=bad.match):
        fdrl_head(**GOOD | {name: bad.value})


@pytest.mark.parametrize(
    ("name", "shape", "match"),
    [
        ("input", (2, 6), r"`input` must have shape \(\*, P\) with P = 5, got \(2, 6\)"),
        ("decomposition_weight", (3, 5), r"`decomposition_weight` .* \(M, D, P\), got \(3, 5\)"),
        ("decomposition_bias", (4, 1), r"`decomposition_bias` .* D = 3, got \(4, 1\)"),
        ("intra_weight", (3, 3), r"`intra_weight` .* with M = 4 and D = 3, got \(3, 3\)"),
        ("inter_bias", (3,), r"`inter_bias` .* with M = 4 and D = 3, got \(3,\)"),
        ("classifier_weight", (7, 4), r"`classifier_weight` .* with D = 3, got \(7, 4\)"),
        ("classifier_weight", (3,), r"`classifier_weight` .* \(K, D\) with D = 3, got \(3,\)"),
        ("classifier_bias", (3,), r"`classifier_bias` must have shape \(K,\) .*7, got \(3,\)"),
        ("classifier_bias", (1,), r"`classifier_bias` must have shape \(K,\) .*7, got \(1,\)"),
    ],
)
def test_rejects_shapes(name: str, shape: tuple[int, ...], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        fdrl_head(**GOOD | {name: torch.ones(shape)})


@pytest.mark.parametrize("layer", ["intra", "inter", "classifier"])
def test_rejects_a_bias_without_its_weight(layer: str) -> None:
    match = f"`{layer}_bias` must be None where `{layer}_weight` is"
    with pytest.raises(ValueError, match=match):
        fdrl_head(**GOOD | {f"{layer}_weight": None})


@pytest.mark.parametrize(
    ("bad", "error", "match"),
    [
        (-1, ValueError, "must be at least 0, got -1"),
        (7.0, TypeError, "must be an integer, got float: 7.0"),
        (True, TypeError, "must be an integer, got bool: True"),
    ],
)
def test_rejects_a_number_of_classes(bad: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=f"`num_classes` {match}"):
        FDRLHead(5, bad)


@pytest.mark.parametrize(
    ("option", "bad", "match"),
    [
        ("delta", -0.1, r"a finite number in \[0, 1\], got -0.1"),
        ("delta", 1.1, r"a finite number in \[0, 1\], got 1.1"),
        ("delta", float("nan"), r"a finite number in \[0, 1\], got nan"),
        ("reduction", "max", "one of 'sum', 'mean', 'share', got 'max'"),
        ("self_feature", "latent", "one of 'intra', 'message', got 'latent'"),
    ],
)
def test_rejects_an_option(option: str, bad: Any, match: str) -> None:
    for make in (partial(FDRLHead, 5, 7), partial(fdrl_head, **GOOD)):
        with pytest.raises(ValueError, match=f"`{option}` must be {match}"):
            make(**{option: bad})


def test_rejects_a_message_that_is_missing() -> None:
    without = GOOD | {"inter_weight": None, "inter_bias": None}
    for make in (partial(FDRLHead, 5, 7, inter=False), partial(fdrl_head, **without)):
        match = r'`self_feature` must be "intra" where Inter-RM is left out'
        with pytest.raises(ValueError, match=match):
            make(self_feature="message")


@REDUCTION
@pytest.mark.parametrize("m", [2, 9, 16])
def test_law_a_new_head_starts_at_the_target_of_balance_loss(reduction: Reduction, m: int) -> None:
    head = drawn(num_latents=m, reduction=reduction)
    output = head(normal(256, 512, seed=1, dtype=torch.float32).relu())
    weights = output.intra_weights * m
    assert weights.mean().item() == pytest.approx(1, rel=0.03)
    assert (weights - 1).abs().max() < 0.15
    assert balance_loss(output.intra_weights).item() < 0.03
    assert 0 < output.inter_weights[:, ~torch.eye(m, dtype=torch.bool)].max() < 0.9


def test_gates_that_start_near_one_half_saturate_the_printed_form() -> None:
    head = drawn(gate_init="linear")
    output = head(normal(64, 512, seed=1, dtype=torch.float32).relu())
    assert output.intra_weights.mean().item() == pytest.approx(64, rel=0.05)
    assert balance_loss(output.intra_weights).item() == pytest.approx(575, rel=0.05)
    assert output.inter_weights[:, ~torch.eye(9, dtype=torch.bool)].min() > 0.999


def test_a_new_printed_form_does_not_overflow_in_float16() -> None:
    features = normal(64, 512, seed=1, scale=1000, dtype=torch.float16).relu()
    made = {}
    for start in ("uniform", "linear"):
        head = drawn(gate_init=start, dtype=torch.float16)
        # The gates of latents this large say little of where they started: without their weight.
        assert head.reconstruction.intra is not None
        torch.nn.init.zeros_(head.reconstruction.intra.weight)
        made[start] = bool(head(features).embedding.isfinite().all())
    assert made == {"uniform": True, "linear": False}


def test_the_start_of_gates_changes_nothing_else_of_a_seed() -> None:
    states = [drawn(gate_init=start).state_dict() for start in ("uniform", "linear")]
    differing = {name for name in states[0] if not torch.equal(states[0][name], states[1][name])}
    assert differing == {"reconstruction.intra.bias"}


@REDUCTION
@pytest.mark.parametrize(
    "options", [*RELATIONS.values(), {"self_feature": "message"}], ids=[*RELATIONS, "message"]
)
def test_equals_a_loop_of_linear_layers(reduction: Reduction, options: dict[str, Any]) -> None:
    head, loop = twins(reduction=reduction, delta=0.25, **options)
    x = normal(6, 5, seed=1)
    actual, expected = fields(head(x)), fields(loop(x))
    assert_close("output", actual, expected)
    theirs = gradients(expected, dict(loop.named_parameters()))
    ours = gradients(actual, dict(head.named_parameters()))
    assert_close("gradient", ours, loop.stacked(theirs))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_trains_as_a_loop_of_linear_layers_does(reduction: Reduction, optimizer: Any) -> None:
    head, loop = twins(reduction=reduction)
    x, target = normal(8, 5, seed=1), torch.arange(8) % 3
    start = [parameter.detach().clone() for parameter in head.parameters()]
    histories = []
    for model in (head, loop):
        steps = optimizer(model.parameters(), lr=0.01)
        history = []
        for _ in range(200):
            output = model(x)
            balance = (output.intra_weights.mean(0) - 1 / 3).abs().sum()
            loss = F.cross_entropy(output.logits, target) + balance
            steps.zero_grad()
            loss.backward()
            steps.step()
            history.append(loss.item())
        histories.append(history)
    assert histories[0][-1] < 0.95 * histories[0][0]
    assert histories[0] == pytest.approx(histories[1], rel=0, abs=1e-8)
    expected = loop.stacked(dict(loop.named_parameters()))
    for (name, parameter), before in zip(head.named_parameters(), start, strict=True):
        assert (parameter - before).abs().max() > 1e-3, name
        torch.testing.assert_close(parameter.detach(), expected[name], rtol=0, atol=1e-8)


def twins(**options: Any) -> tuple[FDRLHead, LoopHead]:
    """A head and a loop with the same parameters, in float64."""
    head = FDRLHead(5, 3, **SIZES, **options, dtype=torch.float64)
    has = {name: options.get(name, True) for name in ("intra", "inter")}
    head.load_state_dict(parameters_for(Sizes(N=8, P=5, M=3, D=6, K=3), 7, **has))
    loop = LoopHead(5, 3, **SIZES, **options).double()
    loop.load_stacked(head)
    return head, loop


@pytest.mark.compile
@pytest.mark.timeout(600)
def test_compiles_with_inductor(fresh_compiler: None) -> None:
    head, _ = twins(reduction="sum")
    compiled = torch.compile(head, fullgraph=True, dynamic=True)
    for batch in (4, 7):
        x = normal(batch, 5, seed=batch).requires_grad_()
        actual, expected = fields(compiled(x)), fields(head(x))
        assert_close("output", actual, expected)
        inputs = {"input": x, **dict(head.named_parameters())}
        assert_close("gradient", gradients(actual, inputs), gradients(expected, inputs))


FIRST_313 = "Guards may run slower on Python 3.13.0"
"""What the compiler says of the first release of Python 3.13."""

EXPORT = """
import torch
from fdrl_layers import FDRLHead
head = FDRLHead(5, 2, latent_dim=6, num_latents=3)
batch = ({0: torch.export.Dim("N")},)
torch.export.export(head, (torch.ones(4, 5),), dynamic_shapes=batch, strict=True)
"""


def test_exports_before_anything_else_has_run() -> None:
    # Strict export warns of caches that it sees being filled.
    command = [sys.executable, "-W", "error", "-W", f"ignore:{FIRST_313}", "-c", EXPORT]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
