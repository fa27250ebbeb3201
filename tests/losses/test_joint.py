"""The joint loss alone, equation 13; what it shares is in `test_every_loss.py`."""

from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor, nn

from comparing import assert_close
from fdrl_layers import FDRLHead, FDRLLoss, FDRLLossOutput
from loss_cases import JOINT, SMALL, assert_same_state, labels, shares, targets
from loss_shared import DTYPE, DTYPES, head_of
from strategies import IGNORE_INDEX, Sizes, normal, seeds, sizes

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
    data: st.DataObject, of: Sizes, seed: int, weights: tuple[float, ...], **options: Any
) -> None:
    target = data.draw(targets(of))
    target = torch.where(target == IGNORE_INDEX, options["ignore_index"], target)
    options |= zip(LAMBDAS, weights, strict=True)
    inputs, centers = JOINT.inputs(of, seed), JOINT.drawn_centers(of, seed)
    # It says nothing of soft targets.
    soft = {"ignore_index": IGNORE_INDEX} if target.ndim == 2 else {}
    expected = JOINT.expect(inputs, target, centers, **options | soft)
    assert_close("function", JOINT.apply(inputs, target, centers, **options), expected)
    module = JOINT.loaded(centers, of, **options).eval()
    assert_close("module", JOINT.run(module, inputs, target), expected)


def test_the_paper_s_weights_are_the_default() -> None:
    named: dict[str, Any] = dict(zip(LAMBDAS, (1e-4, 1.0, 1e-4), strict=True))
    inputs, target, centers = JOINT.inputs(), labels(), JOINT.drawn_centers()
    expected = JOINT.apply(inputs, target, centers, **named)
    assert_same_state(JOINT.apply(inputs, target, centers), expected)
    module, same = (JOINT.loaded(centers, **options) for options in ({}, named))
    assert_same_state(JOINT.run(module, inputs, target), JOINT.run(same, inputs, target))
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


@pytest.mark.parametrize("logits", DTYPES[1:], ids=str)
@DTYPE
def test_soft_targets_may_have_a_type_of_their_own(dtype: torch.dtype, logits: torch.dtype) -> None:
    inputs, target = JOINT.inputs(dtype=logits), shares().to(dtype)
    centers = {name: value.float() for name, value in JOINT.drawn_centers().items()}
    expected = JOINT.expect(inputs, target.double(), centers)
    assert_close("losses", JOINT.apply(inputs, target, centers), expected, torch.float32)


# On what a head gives.


def features(batch: int = SMALL.N, seed: int = 0) -> Tensor:
    return normal(batch, SMALL.P, seed=seed)


@pytest.mark.parametrize("parts", [{}, {"intra": False}, {"inter": False}], ids=str)
def test_takes_what_a_head_gives(parts: dict[str, Any]) -> None:
    model, loss = head_of(**parts), JOINT.new()
    output = model(features())
    found = loss(output, labels())
    assert isinstance(found, FDRLLossOutput)
    found.total.backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    assert all(grad is not None and grad.isfinite().all() for grad in grads.values())
    used = {name: vars(output)[name].detach() for name in JOINT.axes}
    assert_close("losses", vars(found), JOINT.run(JOINT.new(), used, labels()))


def test_rejects_a_head_without_a_prediction_layer() -> None:
    output = FDRLHead(SMALL.P, 0, latent_dim=SMALL.D, num_latents=SMALL.M)(features().float())
    match = r"`output\.logits` must have shape \(N, K\) with K = 5, got \(6, 0\)"
    with pytest.raises(ValueError, match=match):
        JOINT.new()(output, labels())


def test_exports_in_evaluation() -> None:
    class Losses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.loss = head_of(), JOINT.new()

        def forward(self, input: Tensor, target: Tensor) -> FDRLLossOutput:
            found: FDRLLossOutput = self.loss(self.head(input), target)
            return found

    module, batch = Losses(), torch.export.Dim("N")
    module(features(), labels())
    module.eval()
    program = torch.export.export(
        module, (features(), labels()), dynamic_shapes=({0: batch}, {0: batch})
    )
    target = torch.arange(9) % 4
    found = program.module()(features(9, 3), target)
    assert_close("losses", vars(found), vars(module(features(9, 3), target)))


@pytest.mark.parametrize("frozen", [*TERMS[::2], "compactness.centers", "distribution.centers"])
def test_centers_in_evaluation_mode_stay(frozen: str) -> None:
    loss = JOINT.new()
    JOINT.run(loss, JOINT.inputs(seed=1), labels())
    loss.get_submodule(frozen).eval()
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    JOINT.run(loss, JOINT.inputs(seed=2), labels())
    for name, value in loss.state_dict().items():
        stays = name.startswith(frozen) or name.endswith("seen")
        assert torch.equal(value, before[name]) == stays, name
