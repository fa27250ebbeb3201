from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import oracles
from comparing import assert_close
from fdrl_layers import FeatureReconstruction
from fdrl_layers.functional import feature_reconstruction, intra_relation
from fdrl_layers.layers import Reduction, SelfFeature
from gradients import leaves
from layer_cases import SMALL, Regime, regimes
from rejecting import SPOILS, spoil
from strategies import (
    PAPER,
    SMALL_INTRA_W,
    Sizes,
    latents_NMD,
    normal,
    oracle_arguments,
    parameters_for,
    seeds,
    sizes,
)

BIAS = pytest.mark.parametrize("bias", [True, False], ids=["bias", "bare"])
REDUCTION = pytest.mark.parametrize("reduction", get_args(Reduction))
REGIME = pytest.mark.parametrize("regime", ["default", "small"])
TABLE_2 = pytest.mark.parametrize(
    ("intra", "inter"),
    [(False, False), (True, False), (False, True), (True, True)],
    ids=["FDN", "FDN+intra", "FDN+inter", "FDN+intra+inter"],
)
KEYS = [f"{relation}_{kind}" for relation in ("intra", "inter") for kind in ("weight", "bias")]
OUTPUTS = ("embedding", "Intra-W", "Inter-W")

_EDGES = {"weight": torch.ones(4, 3, 3), "bias": torch.ones(4, 3)}
GOOD: dict[str, Any] = {"latents": torch.ones(2, 4, 3)} | {key: _EDGES[key[6:]] for key in KEYS}


def arguments(of: Sizes, seed: int, **options: Any) -> dict[str, Any]:
    """The parameters of the relations as the function takes them."""
    drawn = parameters_for(of, seed, **options)
    return {key: drawn.get(f"reconstruction.{key.replace('_', '.')}") for key in KEYS}


def outputs(values: tuple[Any, ...]) -> dict[str, Any]:
    """The three outputs by name, without a missing Inter-W."""
    return {k: v for k, v in zip(OUTPUTS, values, strict=True) if v is not None}


def check_against_oracle(
    latents: Tensor,
    parameters: dict[str, Tensor],
    delta: float,
    reduction: Reduction,
    self_feature: SelfFeature = "intra",
) -> dict[str, Any]:
    arrays: dict[str, Any] = {key: oracle_arguments(parameters).get(key) for key in KEYS}
    tensors: dict[str, Any] = {
        key: parameters.get(f"reconstruction.{key.replace('_', '.')}") for key in KEYS
    }
    options: dict[str, Any] = {
        "delta": delta,
        "reduction": reduction,
        "self_feature": self_feature,
    }
    actual = outputs(feature_reconstruction(latents, **tensors, **options))
    expected = oracles.feature_reconstruction(latents.numpy(), **arrays, **options)
    assert_close("reconstruction", actual, outputs(expected))
    return actual


@TABLE_2
@BIAS
@given(data=st.data(), of=sizes(), seed=seeds(), delta=st.floats(0, 1))
def test_matches_oracle(
    data: st.DataObject, of: Sizes, seed: int, delta: float, bias: bool, intra: bool, inter: bool
) -> None:
    reduction = data.draw(st.sampled_from(get_args(Reduction)))
    self_feature = data.draw(st.sampled_from(get_args(SelfFeature) if inter else ("intra",)))
    regime = data.draw(regimes(both=bias and intra))
    parameters = parameters_for(of, seed, bias=bias, intra=intra, inter=inter, regime=regime)
    check_against_oracle(data.draw(latents_NMD(of)), parameters, delta, reduction, self_feature)


@REGIME
@REDUCTION
def test_matches_oracle_at_paper_sizes(reduction: Reduction, regime: Regime) -> None:
    latents = normal(PAPER.N, PAPER.M, PAPER.D, seed=1).relu()
    parameters = parameters_for(PAPER, 0, regime=regime)
    actual = check_against_oracle(latents, parameters, 0.5, reduction)
    others = actual["Inter-W"][:, ~torch.eye(PAPER.M, dtype=torch.bool)]
    if reduction == "sum":
        about = {"default": 64.0, "small": SMALL_INTRA_W}[regime]
        assert actual["Intra-W"].mean().item() == pytest.approx(about, rel=0.1)
        assert bool((others == 1).all()) == (regime == "default")


@TABLE_2
@REDUCTION
@BIAS
def test_module_equals_function(bias: bool, reduction: Reduction, intra: bool, inter: bool) -> None:
    layer = FeatureReconstruction(
        6, 3, delta=0.25, intra=intra, inter=inter, reduction=reduction, bias=bias
    )
    named = layer.named_parameters()
    parameters: dict[str, Any] = {key.replace(".", "_"): value for key, value in named}
    assert len(parameters) == (intra + inter) * (1 + bias)
    latents = normal(4, 3, 6, seed=0, dtype=torch.float32)
    expected = outputs(
        feature_reconstruction(latents, **parameters, delta=0.25, reduction=reduction)
    )
    actual = outputs(layer(latents))
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


def test_the_paper_is_the_default() -> None:
    layer = FeatureReconstruction()
    assert (layer.delta, layer.reduction, layer.self_feature) == (0.5, "sum", "intra")
    assert layer.intra is not None
    assert layer.inter is not None
    latents = normal(2, SMALL.M, SMALL.D, seed=0)
    given_none = feature_reconstruction(latents, **arguments(SMALL, 0))
    given_all = feature_reconstruction(
        latents, **arguments(SMALL, 0), delta=0.5, reduction="sum", self_feature="intra"
    )
    assert torch.equal(given_none[0], given_all[0])


@TABLE_2
@REDUCTION
def test_gradcheck(reduction: Reduction, intra: bool, inter: bool) -> None:
    of = Sizes(N=2, P=1, M=3, D=4, K=1)
    parameters = arguments(of, 1, intra=intra, inter=inter)
    inputs = leaves(normal(of.N, of.M, of.D, seed=1), *parameters.values())
    assert gradcheck(
        lambda *x: tuple(outputs(feature_reconstruction(*x, reduction=reduction)).values()), inputs
    )


@TABLE_2
def test_gradgradcheck(intra: bool, inter: bool) -> None:
    of = Sizes(N=1, P=1, M=3, D=2, K=1)
    parameters = arguments(of, 1, intra=intra, inter=inter)
    inputs = leaves(normal(of.N, of.M, of.D, seed=1), *parameters.values())
    assert gradgradcheck(
        lambda *x: tuple(outputs(feature_reconstruction(*x, delta=0.3)).values()), inputs
    )


@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
@pytest.mark.parametrize("intra", [True, False])
def test_derivatives_with_the_message(check: Callable[..., bool], intra: bool) -> None:
    of = Sizes(N=1, P=1, M=3, D=2, K=1)
    inputs = leaves(normal(of.N, of.M, of.D, seed=1), *arguments(of, 1, intra=intra).values())

    def run(*values: Any) -> tuple[Tensor, ...]:
        found = feature_reconstruction(*values, delta=0.3, self_feature="message")
        return tuple(outputs(found).values())

    assert check(run, inputs)


def test_gradients_are_finite_where_every_latent_is_dead() -> None:
    parameters = arguments(SMALL, 1, bias=False)
    inputs = leaves(torch.zeros(2, SMALL.M, SMALL.D, dtype=torch.float64), *parameters.values())
    embedding, intra_weights, inter_weights = feature_reconstruction(*inputs)
    assert inter_weights is not None
    assert not inter_weights.any()
    assert not embedding.any()
    wanted = [tensor for tensor in inputs if tensor is not None]
    total = embedding.sum() + intra_weights.sum() + inter_weights.sum()
    found = torch.autograd.grad(total, wanted)
    assert all(gradient.isfinite().all() for gradient in found)


@pytest.mark.parametrize("how", SPOILS)
@pytest.mark.parametrize("name", GOOD)
def test_rejects_what_is_no_feature(name: str, how: str) -> None:
    bad = spoil(how, name, GOOD[name])
    with pytest.raises(bad.error, match=bad.match):
        feature_reconstruction(**GOOD | {name: bad.value})


@pytest.mark.parametrize(
    ("name", "shape", "match"),
    [
        ("latents", (2, 4, 5), r"`latents` .* with M = 4 and D = 3, got \(2, 4, 5\)"),
        ("latents", (3,), r"`latents` must have shape \(\*, M, D\).*, got \(3,\)"),
        ("intra_weight", (3, 3), r"`intra_weight` must have shape \(M, D, D\), got \(3, 3\)"),
        ("intra_weight", (4, 3, 2), r"`intra_weight` .* \(M, D, D\), got \(4, 3, 2\)"),
        ("inter_weight", (4, 3, 2), r"`inter_weight` .* \(M, D, D\), got \(4, 3, 2\)"),
        ("intra_bias", (4, 1), r"`intra_bias` .* with M = 4 and D = 3, got \(4, 1\)"),
        ("inter_bias", (3,), r"`inter_bias` .* with M = 4 and D = 3, got \(3,\)"),
    ],
)
def test_rejects_shapes(name: str, shape: tuple[int, ...], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        feature_reconstruction(**GOOD | {name: torch.ones(shape)})


def test_rejects_relations_that_do_not_fit_each_other() -> None:
    other = {"inter_weight": torch.ones(5, 3, 3), "inter_bias": torch.ones(5, 3)}
    match = r"`(latents|inter_weight)` must have shape .* with M = [45] and D = 3, got \("
    with pytest.raises(ValueError, match=match):
        feature_reconstruction(**GOOD | other)


@pytest.mark.parametrize("relation", ["intra", "inter"])
def test_rejects_a_bias_without_its_weight(relation: str) -> None:
    match = f"`{relation}_bias` must be None where `{relation}_weight` is, got a tensor"
    with pytest.raises(ValueError, match=match):
        feature_reconstruction(**GOOD | {f"{relation}_weight": None})


@pytest.mark.parametrize("delta", [-0.1, 1.1, float("nan"), float("inf")])
def test_rejects_a_delta_outside_0_to_1(delta: float) -> None:
    match = rf"`delta` must be a finite number in \[0, 1\], got {delta}"
    with pytest.raises(ValueError, match=match):
        feature_reconstruction(**GOOD, delta=delta)
    with pytest.raises(ValueError, match=match):
        FeatureReconstruction(delta=delta)


@pytest.mark.parametrize("delta", [True, "0.5", None, torch.tensor(0.5)], ids=repr)
def test_rejects_a_delta_that_is_no_number(delta: Any) -> None:
    match = r"`delta` must be a number, got (bool|str|NoneType|Tensor)"
    with pytest.raises(TypeError, match=match):
        feature_reconstruction(**GOOD, delta=delta)
    with pytest.raises(TypeError, match=match):
        FeatureReconstruction(delta=delta)


@pytest.mark.parametrize("intra", [True, False])
def test_rejects_an_unknown_reduction_even_where_it_has_no_effect(intra: bool) -> None:
    reduction: Any = "max"
    match = r"`reduction` must be one of 'sum', 'mean', 'share', got 'max'"
    with pytest.raises(ValueError, match=match):
        FeatureReconstruction(intra=intra, reduction=reduction)
    with pytest.raises(ValueError, match=match):
        feature_reconstruction(torch.ones(2, 4, 3), reduction=reduction)


@pytest.mark.parametrize("intra", [True, False])
def test_rejects_the_message_where_there_is_none(intra: bool) -> None:
    match = r'`self_feature` must be "intra" where Inter-RM is left out, .*, got \'message\''
    with pytest.raises(ValueError, match=match):
        FeatureReconstruction(intra=intra, inter=False, self_feature="message")
    parameters = arguments(SMALL, 0, intra=intra, inter=False)
    latents = normal(2, SMALL.M, SMALL.D, seed=0)
    with pytest.raises(ValueError, match=match):
        feature_reconstruction(latents, **parameters, self_feature="message")


def test_rejects_an_unknown_self_feature() -> None:
    self_feature: Any = "latent"
    match = r"`self_feature` must be one of 'intra', 'message', got 'latent'"
    with pytest.raises(ValueError, match=match):
        FeatureReconstruction(self_feature=self_feature)
    with pytest.raises(ValueError, match=match):
        feature_reconstruction(torch.ones(2, 4, 3), self_feature=self_feature)


@given(data=st.data(), of=sizes(), seed=seeds())
def test_law_at_delta_0_the_self_feature_has_no_part(
    data: st.DataObject, of: Sizes, seed: int
) -> None:
    latents, parameters = data.draw(latents_NMD(of)), arguments(of, seed)
    intra, message = (
        feature_reconstruction(latents, **parameters, delta=0.0, self_feature=name)
        for name in get_args(SelfFeature)
    )
    assert_close("embedding", message[0], intra[0])


@given(data=st.data(), of=sizes(), seed=seeds())
def test_law_at_delta_1_messages_are_added_up(data: st.DataObject, of: Sizes, seed: int) -> None:
    latents, parameters = data.draw(latents_NMD(of)), arguments(of, seed)
    found = feature_reconstruction(latents, **parameters, delta=1.0, self_feature="message")
    features, _ = intra_relation(latents, parameters["intra_weight"], parameters["intra_bias"])
    products = torch.einsum("nmi,moi->nmo", features, parameters["inter_weight"])
    messages = (products + parameters["inter_bias"]).relu()
    assert_close("embedding", found[0], messages.sum(-2))


@given(data=st.data(), of=sizes(), seed=seeds())
def test_law_delta_1_switches_inter_rm_off(data: st.DataObject, of: Sizes, seed: int) -> None:
    latents = data.draw(latents_NMD(of))
    both, _, inter_weights = feature_reconstruction(latents, **arguments(of, seed), delta=1.0)
    parameters = arguments(of, seed, inter=False)
    # Another delta, for without Inter-RM it has no effect.
    alone, _, nothing = feature_reconstruction(latents, **parameters, delta=0.25)
    assert_close("embedding", both, alone)
    assert inter_weights is not None
    assert nothing is None


@given(data=st.data(), of=sizes(), seed=seeds(), delta=st.floats(0, 1))
def test_law_the_embedding_is_affine_in_delta(
    data: st.DataObject, of: Sizes, seed: int, delta: float
) -> None:
    latents, parameters = data.draw(latents_NMD(of)), arguments(of, seed)
    mixed, at_0, at_1 = (
        feature_reconstruction(latents, **parameters, delta=d)[0] for d in (delta, 0.0, 1.0)
    )
    assert_close("embedding", mixed, delta * at_1 + (1 - delta) * at_0)


@given(data=st.data(), of=sizes())
def test_law_without_relations_latents_are_added_up(data: st.DataObject, of: Sizes) -> None:
    latents = data.draw(latents_NMD(of))
    embedding, intra_weights, inter_weights = feature_reconstruction(latents)
    assert_close("embedding", embedding, latents.sum(-2))
    assert torch.equal(intra_weights, torch.ones(of.N, of.M, dtype=torch.float64))
    assert inter_weights is None
