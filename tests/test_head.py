import dataclasses
import itertools
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F
from torch.utils import _pytree as pytree

import oracles
from comparing import assert_close
from fdrl_layers import FDRLHead, FDRLOutput
from fdrl_layers.functional import balance_loss, fdrl_head
from fdrl_layers.layers import Reduction, SelfFeature
from gradients import gradients, leaves
from layer_cases import SMALL, Regime, regimes
from loop_head import LoopHead
from rejecting import SPOILS, spoil
from strategies import (
    PAPER,
    SMALL_INTRA_W,
    Sizes,
    normal,
    oracle_arguments,
    parameters_for,
    scales,
    seeds,
    sizes,
)

REDUCTION = pytest.mark.parametrize("reduction", get_args(Reduction))
TABLE_2 = pytest.mark.parametrize(
    ("intra", "inter"),
    [(False, False), (True, False), (False, True), (True, True)],
    ids=["FDN", "FDN+intra", "FDN+inter", "FDN+intra+inter"],
)
LAYERS = ("decomposition", "intra", "inter", "classifier")
KEYS = [f"{layer}_{kind}" for layer in LAYERS for kind in ("weight", "bias")]

GOOD: dict[str, Any] = {
    "input": torch.ones(2, 5),
    "decomposition_weight": torch.ones(4, 3, 5),
    "decomposition_bias": torch.ones(4, 3),
    "intra_weight": torch.ones(4, 3, 3),
    "intra_bias": torch.ones(4, 3),
    "inter_weight": torch.ones(4, 3, 3),
    "inter_bias": torch.ones(4, 3),
    "classifier_weight": torch.ones(7, 3),
    "classifier_bias": torch.ones(7),
}


def arguments(parameters: dict[str, Tensor]) -> dict[str, Any]:
    """The parameters of a head as the function takes them."""
    return {k.removeprefix("reconstruction.").replace(".", "_"): v for k, v in parameters.items()}


def fields(output: Any) -> dict[str, Any]:
    """The fields of an output, the package's or the oracle's, without a missing Inter-W."""
    pairs = {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
    return {name: value for name, value in pairs.items() if value is not None}


def check_against_oracle(
    x: Tensor,
    parameters: dict[str, Tensor],
    delta: float,
    reduction: Reduction,
    self_feature: SelfFeature = "intra",
) -> FDRLOutput:
    options: dict[str, Any] = {"delta": delta, "reduction": reduction, "self_feature": self_feature}
    actual = fdrl_head(x, **arguments(parameters), **options)
    expected = oracles.fdrl_head(x.numpy(), **oracle_arguments(parameters), **options)
    assert_close("head", fields(actual), fields(expected))
    return actual


@TABLE_2
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "bare"])
@given(data=st.data(), of=sizes(), seed=seeds(), scale=scales(), delta=st.floats(0, 1))
def test_matches_oracle(
    data: st.DataObject,
    of: Sizes,
    seed: int,
    scale: float,
    delta: float,
    bias: bool,
    intra: bool,
    inter: bool,
) -> None:
    reduction = data.draw(st.sampled_from(get_args(Reduction)))
    self_feature = data.draw(st.sampled_from(get_args(SelfFeature) if inter else ("intra",)))
    regime = data.draw(regimes(both=bias and intra))
    parameters = parameters_for(of, seed, bias=bias, intra=intra, inter=inter, regime=regime)
    x = normal(of.N, of.P, seed=seed + 1, scale=scale)
    check_against_oracle(x, parameters, delta, reduction, self_feature)


@pytest.mark.parametrize("self_feature", get_args(SelfFeature))
@pytest.mark.parametrize(("regime", "about"), [("default", 64.0), ("small", SMALL_INTRA_W)])
def test_matches_oracle_at_paper_sizes(
    regime: Regime, about: float, self_feature: SelfFeature
) -> None:
    x, parameters = normal(PAPER.N, PAPER.P, seed=1), parameters_for(PAPER, 0, regime=regime)
    output = check_against_oracle(x, parameters, 0.5, "sum", self_feature)
    assert output.intra_weights.mean().item() == pytest.approx(about, rel=0.1)
    assert output.inter_weights is not None
    others = output.inter_weights[:, ~torch.eye(PAPER.M, dtype=torch.bool)]
    assert bool((others == 1).all()) == (regime == "default")


@TABLE_2
@REDUCTION
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "bare"])
@pytest.mark.parametrize("num_classes", [7, 0])
def test_module_equals_function(
    num_classes: int, bias: bool, reduction: Reduction, intra: bool, inter: bool
) -> None:
    options: dict[str, Any] = {"delta": 0.25, "reduction": reduction}
    head = FDRLHead(
        5, num_classes, latent_dim=6, num_latents=3, intra=intra, inter=inter, bias=bias, **options
    )
    x = normal(4, 5, seed=0, dtype=torch.float32)
    expected = fields(fdrl_head(x, **arguments(dict(head.named_parameters())), **options))
    actual = fields(head(x))
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], value) for name, value in expected.items())


def test_the_paper_is_the_default() -> None:
    head = FDRLHead(512, 7)
    assert (head.reconstruction.delta, head.reconstruction.reduction) == (0.5, "sum")
    assert head.reconstruction.gate_init == "uniform"
    assert head.reconstruction.self_feature == "intra"
    shapes = {key: tuple(value.shape) for key, value in head.state_dict().items()}
    assert shapes == golden(P=512, M=9, D=128, K=7)
    x, parameters = normal(4, 5, seed=0), arguments(parameters_for(SMALL, 0))
    expected = fdrl_head(x, **parameters, delta=0.5, reduction="sum", self_feature="intra")
    assert torch.equal(fdrl_head(x, **parameters).logits, expected.logits)


TINY = Sizes(N=2, P=2, M=3, D=2, K=2)


@TABLE_2
def test_gradcheck(intra: bool, inter: bool) -> None:
    parameters = arguments(parameters_for(TINY, 3, intra=intra, inter=inter))
    inputs = leaves(normal(TINY.N, TINY.P, seed=3), *(parameters.get(key) for key in KEYS))
    assert gradcheck(lambda *x: tuple(fields(fdrl_head(*x, delta=0.3)).values()), inputs)


@REDUCTION
def test_gradgradcheck(reduction: Reduction) -> None:
    of = dataclasses.replace(TINY, N=1)
    parameters = arguments(parameters_for(of, 3))
    inputs = leaves(normal(of.N, of.P, seed=3), *(parameters.get(key) for key in KEYS))
    assert gradgradcheck(
        lambda *x: tuple(fields(fdrl_head(*x, reduction=reduction)).values()), inputs
    )


def golden(
    P: int = 5,
    M: int = 3,
    D: int = 6,
    K: int = 2,
    *,
    intra: bool = True,
    inter: bool = True,
    bias: bool = True,
) -> dict[str, tuple[int, ...]]:
    """The keys of a head and the shapes under them: API, so a change here breaks checkpoints."""
    weights: dict[str, tuple[int, ...]] = {"decomposition.weight": (M, D, P)}
    biases: dict[str, tuple[int, ...]] = {"decomposition.bias": (M, D)}
    if intra:
        weights["reconstruction.intra.weight"] = (M, D, D)
        biases["reconstruction.intra.bias"] = (M, D)
    if inter:
        weights["reconstruction.inter.weight"] = (M, D, D)
        biases["reconstruction.inter.bias"] = (M, D)
    if K:
        weights["classifier.weight"] = (K, D)
        biases["classifier.bias"] = (K,)
    return weights | biases if bias else weights


@pytest.mark.parametrize(
    ("intra", "inter", "bias", "num_classes"),
    list(itertools.product([True, False], [True, False], [True, False], [2, 0])),
)
def test_golden_state_dict(intra: bool, inter: bool, bias: bool, num_classes: int) -> None:
    head = FDRLHead(
        5, num_classes, latent_dim=6, num_latents=3, intra=intra, inter=inter, bias=bias
    )
    shapes = {key: tuple(value.shape) for key, value in head.state_dict().items()}
    assert shapes == golden(K=num_classes, intra=intra, inter=inter, bias=bias)
    assert {key for key, _ in head.named_parameters()} == set(shapes)


def test_without_classes_there_is_no_classifier() -> None:
    head = FDRLHead(5, 0, latent_dim=6, num_latents=3)
    output = head(normal(4, 5, seed=0, dtype=torch.float32))
    assert head.classifier is None
    assert output.logits.shape == (4, 0)
    assert output.logits.dtype == output.embedding.dtype


def test_output_is_frozen_and_travels() -> None:
    output = FDRLHead(5, 2, latent_dim=6, num_latents=3)(torch.ones(4, 5))
    with pytest.raises(dataclasses.FrozenInstanceError):
        output.logits = output.embedding
    names = ["logits", "embedding", "latents", "intra_weights", "inter_weights"]
    assert list(fields(output)) == names
    doubled = pytree.tree_map(lambda tensor: 2 * tensor, output)
    assert type(doubled) is FDRLOutput
    copied = pickle.loads(pickle.dumps(output))
    # By identity: tensors have no single truth.
    assert output != copied
    for name in names:
        assert torch.equal(getattr(doubled, name), 2 * getattr(output, name))
        assert torch.equal(getattr(copied, name), getattr(output, name))


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


@pytest.mark.parametrize("delta", [-0.1, 1.1, float("nan")])
def test_rejects_a_delta_outside_0_to_1(delta: float) -> None:
    match = rf"`delta` must be a finite number in \[0, 1\], got {delta}"
    with pytest.raises(ValueError, match=match):
        FDRLHead(5, 7, delta=delta)
    with pytest.raises(ValueError, match=match):
        fdrl_head(**GOOD, delta=delta)


@REDUCTION
@pytest.mark.parametrize("m", [2, 9, 16])
def test_law_a_new_head_starts_at_the_target_of_the_balance_loss(
    reduction: Reduction, m: int
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = FDRLHead(512, 7, num_latents=m, reduction=reduction)
    output = head(normal(256, 512, seed=1, dtype=torch.float32).relu())
    weights = output.intra_weights * m
    assert weights.mean().item() == pytest.approx(1, rel=0.03)
    assert (weights - 1).abs().max() < 0.15
    assert balance_loss(output.intra_weights).item() < 0.03
    assert 0 < output.inter_weights[:, ~torch.eye(m, dtype=torch.bool)].max() < 0.9


def test_gates_that_start_near_one_half_saturate_the_printed_form() -> None:
    head = FDRLHead(512, 7, gate_init="linear")
    output = head(normal(64, 512, seed=1, dtype=torch.float32).relu())
    assert output.intra_weights.mean().item() == pytest.approx(64, rel=0.05)
    assert balance_loss(output.intra_weights).item() == pytest.approx(575, rel=0.05)
    assert output.inter_weights[:, ~torch.eye(9, dtype=torch.bool)].min() > 0.999


def test_a_new_printed_form_does_not_overflow_in_float16() -> None:
    features = normal(64, 512, seed=1, scale=1000, dtype=torch.float16).relu()
    made = {}
    for start in ("uniform", "linear"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            head = FDRLHead(512, 7, gate_init=start, dtype=torch.float16)
        # The gates of latents this large say little of where they started: without their weight.
        assert head.reconstruction.intra is not None
        torch.nn.init.zeros_(head.reconstruction.intra.weight)
        made[start] = bool(head(features).embedding.isfinite().all())
    assert made == {"uniform": True, "linear": False}


def test_the_start_of_gates_changes_nothing_else_of_a_seed() -> None:
    states = []
    for start in ("uniform", "linear"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            states.append(FDRLHead(5, 7, latent_dim=6, num_latents=3, gate_init=start).state_dict())
    differing = {name for name in states[0] if not torch.equal(states[0][name], states[1][name])}
    assert differing == {"reconstruction.intra.bias"}


def test_rejects_an_unknown_reduction() -> None:
    reduction: Any = "max"
    match = r"`reduction` must be one of 'sum', 'mean', 'share', got 'max'"
    with pytest.raises(ValueError, match=match):
        FDRLHead(5, 7, reduction=reduction)
    with pytest.raises(ValueError, match=match):
        fdrl_head(**GOOD, reduction=reduction)


def test_rejects_an_unknown_self_feature_and_a_message_that_is_missing() -> None:
    unknown: Any = "latent"
    match = r"`self_feature` must be one of 'intra', 'message', got 'latent'"
    with pytest.raises(ValueError, match=match):
        FDRLHead(5, 7, self_feature=unknown)
    with pytest.raises(ValueError, match=match):
        fdrl_head(**GOOD, self_feature=unknown)
    match = r'`self_feature` must be "intra" where Inter-RM is left out'
    with pytest.raises(ValueError, match=match):
        FDRLHead(5, 7, inter=False, self_feature="message")
    without = GOOD | {"inter_weight": None, "inter_bias": None}
    with pytest.raises(ValueError, match=match):
        fdrl_head(**without, self_feature="message")


@TABLE_2
@REDUCTION
def test_equals_a_loop_of_linear_layers(reduction: Reduction, intra: bool, inter: bool) -> None:
    options: dict[str, Any] = {"intra": intra, "inter": inter, "reduction": reduction}
    head, loop = twins(**options)
    x = normal(6, 5, seed=1)
    actual, expected = fields(head(x)), fields(loop(x))
    assert_close("output", actual, expected)
    wanted = dict(loop.named_parameters())
    assert_close(
        "gradient",
        gradients(actual, dict(head.named_parameters())),
        loop.stacked(gradients(expected, wanted)),
    )


@REDUCTION
def test_equals_a_loop_that_mixes_the_message(reduction: Reduction) -> None:
    head, loop = twins(reduction=reduction, self_feature="message", delta=0.25)
    x = normal(6, 5, seed=1)
    actual, expected = fields(head(x)), fields(loop(x))
    assert_close("output", actual, expected)
    printed, _ = twins(reduction=reduction, delta=0.25)
    assert not torch.allclose(printed(x).embedding, head(x).embedding, rtol=0.1)
    wanted = dict(loop.named_parameters())
    assert_close(
        "gradient",
        gradients(actual, dict(head.named_parameters())),
        loop.stacked(gradients(expected, wanted)),
    )


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_trains_as_a_loop_of_linear_layers_does(
    reduction: Reduction, optimizer: type[torch.optim.Optimizer]
) -> None:
    head, loop = twins(reduction=reduction)
    x, target = normal(8, 5, seed=1), torch.arange(8) % 3
    start = [parameter.detach().clone() for parameter in head.parameters()]
    histories = []
    for model in (head, loop):
        steps = optimizer(model.parameters(), lr=0.01)  # type: ignore[call-arg]
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
    sizes: dict[str, Any] = {"latent_dim": 6, "num_latents": 3}
    head = FDRLHead(5, 3, **sizes, **options, dtype=torch.float64)
    has = {name: options.get(name, True) for name in ("intra", "inter")}
    head.load_state_dict(parameters_for(Sizes(N=8, P=5, M=3, D=6, K=3), 7, **has))
    loop = LoopHead(5, 3, **sizes, **options).double()
    loop.load_stacked(head)
    return head, loop


@pytest.mark.compile
@pytest.mark.timeout(600)
def test_compiles_with_inductor(fresh_compiler: None) -> None:
    head, _ = twins(reduction="sum")
    compiled = torch.compile(head, fullgraph=True, dynamic=True)
    for batch in (4, 7):
        results = []
        for model in (head, compiled):
            x = normal(batch, 5, seed=batch).requires_grad_()
            outputs = fields(model(x))
            found = gradients(outputs, {"input": x, **dict(head.named_parameters())})
            results.append((outputs, found))
        assert_close("output", results[1][0], results[0][0])
        assert_close("gradient", results[1][1], results[0][1])


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
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", f"ignore:{FIRST_313}", "-c", EXPORT],
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
