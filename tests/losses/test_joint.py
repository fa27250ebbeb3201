"""The joint loss alone, equation 13; what it shares is in `test_every_loss.py`."""

from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st

from comparing import assert_close
from fdrl_layers import FDRLLoss
from loss_cases import (
    JOINT,
    gradients_of,
    labels,
    shares,
    targets,
    wanting,
)
from strategies import IGNORE_INDEX, Sizes, seeds, sizes

LAMBDAS = ("lambda_compactness", "lambda_balance", "lambda_distribution")
TERMS = ("compactness", "balance", "distribution")


@given(
    data=st.data(),
    of=sizes(),
    seed=seeds(),
    weights=st.tuples(*[st.sampled_from([0.0, 1e-4, 1.0, 3.0])] * 3),
    label_smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    ignore_index=st.sampled_from([-100, 0, 3]),
)
def test_matches_oracle_with_its_options(
    data: st.DataObject,
    of: Sizes,
    seed: int,
    weights: tuple[float, float, float],
    label_smoothing: float,
    ignore_index: int,
) -> None:
    target = data.draw(targets(of))
    if target.ndim == 2:
        ignore_index = IGNORE_INDEX
    else:
        target = torch.where(target == IGNORE_INDEX, ignore_index, target)
    options: dict[str, Any] = dict(zip(LAMBDAS, weights, strict=True))
    options |= {"label_smoothing": label_smoothing, "ignore_index": ignore_index}
    inputs, centers = JOINT.inputs(of, seed), JOINT.drawn_centers(of, seed)
    expected = JOINT.expect(inputs, target, centers, **options)
    assert_close("function", JOINT.apply(inputs, target, centers, **options), expected)
    module = JOINT.loaded(centers, of, **options).eval()
    assert_close("module", JOINT.run(module, inputs, target), expected)


def test_the_paper_s_weights_are_the_default() -> None:
    named: dict[str, Any] = dict(zip(LAMBDAS, (1e-4, 1.0, 1e-4), strict=True))
    centers = JOINT.drawn_centers()
    arguments = JOINT.inputs(), labels(), centers
    assert JOINT.apply(*arguments)["total"] == JOINT.apply(*arguments, **named)["total"]
    assert (
        JOINT.run(JOINT.loaded(centers), *arguments[:2])["total"]
        == (JOINT.run(JOINT.loaded(centers, **named), *arguments[:2])["total"])
    )
    loss = FDRLLoss(7)
    assert loss.compactness.centers.value.shape == (9, 128)
    assert loss.distribution.centers.value.shape == (7, 9)


@pytest.mark.parametrize(("name", "term"), [*zip(LAMBDAS, TERMS, strict=True)])
def test_a_weight_can_be_changed_later(name: str, term: str) -> None:
    nothing: dict[str, Any] = dict.fromkeys(LAMBDAS, 0.0)
    loss = JOINT.loaded(JOINT.drawn_centers(), **nothing).eval()
    found = JOINT.run(loss, JOINT.inputs(), labels())
    assert found["total"] == found["classification"]
    setattr(loss, name, 2.0)
    found = JOINT.run(loss, JOINT.inputs(), labels())
    assert_close("total", found["total"], found["classification"] + 2 * found[term])


def test_ignored_samples_enter_what_needs_no_label() -> None:
    target, needs_none = labels(), ("compactness", "balance")
    for term in ("classification", "distribution", *needs_none):
        inputs = wanting(JOINT.inputs())
        found = gradients_of(JOINT.run(JOINT.new(), inputs, target)[term], inputs).values()
        assert any(gradient[target >= 0].any() for gradient in found), term
        assert any(gradient[target < 0].any() for gradient in found) == (term in needs_none), term


def test_ignored_samples_are_in_the_latents_centers_and_in_no_class_s() -> None:
    loss, inputs, target = JOINT.new(), JOINT.inputs(), labels()
    JOINT.run(loss, inputs, target)
    held = JOINT.held(loss)
    assert_close("latents", held["latent_centers"], inputs["latents"].mean(0))
    for k in target[target >= 0].unique().tolist():
        mean = inputs["intra_weights"][target == k].mean(0)
        assert_close(f"class {k}", held["class_centers"][k], mean)


def test_ignore_index_says_nothing_of_soft_targets() -> None:
    inputs, centers, target = JOINT.inputs(), JOINT.drawn_centers(), shares()
    expected = JOINT.expect(inputs, target, centers)
    assert_close("losses", JOINT.apply(inputs, target, centers, ignore_index=0), expected)


@pytest.mark.parametrize("logits", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str
)
def test_soft_targets_may_have_a_type_of_their_own(dtype: torch.dtype, logits: torch.dtype) -> None:
    inputs = {name: value.to(logits) for name, value in JOINT.inputs().items()}
    target = shares().to(dtype)
    centers = {name: value.float() for name, value in JOINT.drawn_centers().items()}
    expected = JOINT.expect(inputs, target.double(), centers)
    assert_close("losses", JOINT.apply(inputs, target, centers), expected, torch.float32)
