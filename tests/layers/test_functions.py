"""What is the same for the functions of all layers: derivatives, modules, and what they reject."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import layer_cases
from devices import each_of
from fdrl_layers import functional
from fdrl_layers.layers import Reduction
from gradients import leaves
from layer_cases import LayerCase
from rejecting import SPOILS, spoil
from strategies import Sizes


def arguments_of(layer: torch.nn.Module) -> dict[str, Tensor]:
    return {name.replace(".", "_"): p for name, p in layer.named_parameters()}


NAMES = {"FDN": "FDN", "intra-sum": "intra", "inter-weights-bare": "inter", "FRN": "FRN"}
PLAIN = {NAMES[c.name]: replace(c, options={}) for c in layer_cases.CASES if c.name in NAMES}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "FDN": functional.feature_decomposition,
    "intra": functional.intra_relation,
    "inter": functional.inter_relation,
    "FRN": functional.feature_reconstruction,
}
PARTS = [{"intra": intra, "inter": inter} for intra in (True, False) for inter in (True, False)]
REDUCTIONS = [{"reduction": reduction} for reduction in get_args(Reduction)]
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "FDN": [{}],
    "intra": REDUCTIONS,
    "inter": [{}],
    "FRN": [parts | each | {"delta": 0.25} for parts in PARTS for each in REDUCTIONS]
    + [{"intra": intra, "self_feature": "message", "delta": 0.3} for intra in (True, False)],
}
CASES = [
    replace(PLAIN[name], name=f"{name}-{index}{'' if bias else '-bare'}", options=given)
    for name, options in OPTIONS.items()
    for index, each in enumerate(options)
    for bias in (True, False)
    for given in [each | {"bias": bias}]
]
SMALL = Sizes(N=2, P=5, M=4, D=3, K=1)
GOOD: dict[str, dict[str, Any]] = {
    name: {case.takes: case.input(SMALL)} | arguments_of(case.loaded(SMALL).requires_grad_(False))
    for name, case in PLAIN.items()
}
ARGUMENT = pytest.mark.parametrize(
    ("layer", "name"), [(layer, name) for layer, good in GOOD.items() for name in good]
)


def apply(case: LayerCase, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """Call the function with the options of the case, and name what it gives."""
    options = {k: v for k, v in case.options.items() if k not in ("bias", "intra", "inter")}
    if case.arguments:
        options["need_weights"] = True
    return case.named(FUNCTIONS[case.name.split("-")[0]](**arguments, **options))


@each_of(CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_module_equals_function(case: LayerCase, dtype: torch.dtype) -> None:
    layer, x = case.new(dtype=dtype), case.input().to(dtype)
    parameters = arguments_of(layer)
    relations = case.options.get("intra", True) + case.options.get("inter", True)
    assert len(parameters) == (relations if "FRN" in case.name else 1) * (1 + case.options["bias"])
    actual, expected = case.run(layer, x), apply(case, {case.takes: x} | parameters)
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


@each_of(CASES)
@pytest.mark.parametrize(
    ("check", "of"), [(gradcheck, Sizes(2, 5, 3, 4, 1)), (gradgradcheck, Sizes(2, 3, 3, 2, 1))]
)
def test_derivatives(case: LayerCase, check: Callable[..., bool], of: Sizes) -> None:
    given = {case.takes: case.input(of, 1)} | arguments_of(case.loaded(of, 1))

    def outputs(*values: Tensor) -> tuple[Tensor, ...]:
        return tuple(apply(case, dict(zip(given, values, strict=True))).values())

    assert check(outputs, leaves(*given.values()))


@pytest.mark.parametrize("how", SPOILS)
@ARGUMENT
def test_rejects_what_is_no_feature(layer: str, name: str, how: str) -> None:
    bad = spoil(how, name, GOOD[layer][name])
    with pytest.raises(bad.error, match=bad.match):
        FUNCTIONS[layer](**GOOD[layer] | {name: bad.value})


LATENTS = "(*, M, D) with M = 4 and D = 3"
BIAS = "(M, D) with M = 4 and D = 3"


@pytest.mark.parametrize(
    ("layer", "name", "wanted", "shapes"),
    [
        ("FDN", "input", "(*, P) with P = 5", [(2, 6), ()]),
        ("FDN", "weight", "(M, D, P)", [(12, 5), (1, 4, 3, 5)]),
        ("FDN", "bias", BIAS, [(3,), (1, 3)]),
        ("intra", "latents", LATENTS, [(2, 4, 5), (2, 1, 3), (3,)]),
        ("intra", "weight", "(M, D, D)", [(3, 3), (4, 3, 2)]),
        ("intra", "bias", BIAS, [(4, 1)]),
        ("inter", "features", LATENTS, [(2, 4, 5), (2, 1, 3), (3,)]),
        ("inter", "weight", "(M, D, D)", [(3, 3), (4, 3, 2)]),
        ("inter", "bias", BIAS, [(4, 1)]),
        ("FRN", "latents", LATENTS, [(2, 4, 5)]),
        ("FRN", "latents", "(*, M, D)", [(3,)]),
        ("FRN", "intra_weight", "(M, D, D)", [(3, 3), (4, 3, 2)]),
        ("FRN", "inter_weight", "(M, D, D)", [(4, 3, 2)]),
        ("FRN", "intra_bias", BIAS, [(4, 1)]),
        ("FRN", "inter_bias", BIAS, [(3,)]),
    ],
)
def test_rejects_shapes(layer: str, name: str, wanted: str, shapes: list[tuple[int, ...]]) -> None:
    for shape in shapes:
        match = rf"`{name}` must have shape {re.escape(wanted)}.*, got {re.escape(str(shape))}"
        with pytest.raises(ValueError, match=match):
            FUNCTIONS[layer](**GOOD[layer] | {name: torch.ones(shape, dtype=torch.float64)})


def test_rejects_relations_that_do_not_fit_each_other() -> None:
    other = {"inter_weight": torch.ones(5, 3, 3).double(), "inter_bias": torch.ones(5, 3).double()}
    match = r"`(latents|inter_weight)` must have shape .* with M = [45] and D = 3, got \("
    with pytest.raises(ValueError, match=match):
        functional.feature_reconstruction(**GOOD["FRN"] | other)


@pytest.mark.parametrize("relation", ["intra", "inter"])
def test_rejects_a_bias_without_its_weight(relation: str) -> None:
    match = f"`{relation}_bias` must be None where `{relation}_weight` is, got a tensor"
    with pytest.raises(ValueError, match=match):
        functional.feature_reconstruction(**GOOD["FRN"] | {f"{relation}_weight": None})


OUTSIDE = r"`delta` must be a finite number in \[0, 1\], got {}"
NO_NUMBER = r"`delta` must be a number, got (bool|str|NoneType|Tensor)"
NO_REDUCTION = r"`reduction` must be one of 'sum', 'mean', 'share', got 'max'"
NO_MESSAGE = r'`self_feature` must be "intra" where Inter-RM is left out, .*, got \'message\''
NO_SELF = r"`self_feature` must be one of 'intra', 'message', got 'latent'"
BARE = {"intra": False, "inter": False}


@pytest.mark.parametrize(
    ("layer", "parts", "option", "value", "match"),
    [
        ("intra", {}, "reduction", "max", NO_REDUCTION),
        ("FRN", {}, "reduction", "max", NO_REDUCTION),
        ("FRN", BARE, "reduction", "max", NO_REDUCTION),  # even where it has no effect
        ("FRN", {"inter": False}, "self_feature", "message", NO_MESSAGE),
        ("FRN", BARE, "self_feature", "message", NO_MESSAGE),
        ("FRN", {}, "self_feature", "latent", NO_SELF),
        *(
            ("FRN", {}, "delta", value, OUTSIDE.format(value))
            for value in (-0.1, 1.1, float("nan"), float("inf"))
        ),
        *(
            ("FRN", {}, "delta", value, NO_NUMBER)
            for value in (True, "0.5", None, torch.tensor(0.5))
        ),
    ],
    ids=str,
)
def test_rejects_options(
    layer: str, parts: dict[str, bool], option: str, value: Any, match: str
) -> None:
    case = replace(PLAIN[layer], options=parts)
    wrong = replace(case, options={**parts, option: value})
    error = TypeError if match == NO_NUMBER else ValueError
    with pytest.raises(error, match=match):
        wrong.new()
    with pytest.raises(error, match=match):
        apply(wrong, {case.takes: case.input()} | arguments_of(case.loaded()))
