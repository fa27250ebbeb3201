"""What is right passes in every type, and what is off by one term is refused in every type."""

import inspect
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from benchmarks import loop
from benchmarks.agreement import compute_expected_results, find_disagreement, make_rounded_head
from benchmarks.loop import LoopHead, LoopLoss
from benchmarks.registry import (
    LAMBDAS,
    VERSIONS,
    Lambdas,
    Mode,
    Sizes,
    Version,
    build_step,
    make_batch,
)
from comparing import assert_close
from fdrl_layers import FDRLHead
from layer_cases import Regime

TINY = Sizes(N=14, P=24, M=3, D=32, K=4)
MIDDLE = Sizes(N=16, P=64, M=5, D=64, K=7)
EAGER = [version for version in VERSIONS if not version.compiled and not version.cuda_only]
DTYPE = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)


@DTYPE
@pytest.mark.parametrize(
    ("version", "mode"),
    [pytest.param(v, mode, id=f"{v.name}, {mode}") for v in EAGER for mode in v.modes],
)
def test_versions_agree_with_the_loop(version: Version, mode: Mode, dtype: torch.dtype) -> None:
    for sizes in (TINY, TINY._replace(N=1)):
        assert find_disagreement(version, sizes, mode, "cpu", dtype) is None


@DTYPE
@pytest.mark.parametrize("sizes", [MIDDLE, Sizes(1), Sizes(64)], ids=lambda sizes: f"N{sizes.N}")
def test_baseline_and_reference_agree_at_other_sizes(sizes: Sizes, dtype: torch.dtype) -> None:
    for version in VERSIONS:
        if version.name in ("loop", "reference"):
            assert find_disagreement(version, sizes, "training", "cpu", dtype) is None


@DTYPE
@pytest.mark.parametrize("regime", get_args(Regime))
def test_both_start_from_what_the_type_holds(regime: Regime, dtype: torch.dtype) -> None:
    head = make_rounded_head(TINY, dtype, regime)
    parameters = dict(head.named_parameters())
    for name, value in parameters.items():
        assert torch.equal(value.to(dtype).float(), value), name
    features = make_batch(TINY, "cpu", dtype)[0].double()
    wide = torch.einsum("np,mdp->nmd", features, parameters["decomposition.weight"].double())
    expected = compute_expected_results(head, TINY, "inference", dtype, LAMBDAS)
    latents = (wide + parameters["decomposition.bias"].double()).relu()
    assert_close("latents", expected["latents"], latents, torch.float64)


def version_of(head_kind: Any = LoopHead, loss_kind: Any = LoopLoss) -> Version:
    def make(head: FDRLHead, sizes: Sizes, lambdas: Lambdas = LAMBDAS) -> tuple[Any, Any]:
        return head_kind(head), loss_kind(sizes.K, sizes.M, sizes.D, lambdas)

    return Version("made up", "", make)


def test_gradients_of_centers_are_of_one_step() -> None:
    loss = LoopLoss(TINY.K, TINY.M, TINY.D, LAMBDAS)
    step, runs = build_step(version_of(loss_kind=lambda *_: loss), TINY, "training"), []
    for _ in range(2):
        step.run()
        runs.append([p.grad.clone() for p in loss.parameters() if p.grad is not None])
    assert len(runs[0]) == 2
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def flipped(value: Tensor) -> Tensor:
    """The same value, with the wrong sign of its gradient."""
    return 2 * value.detach() - value


GATES, DISTANCES = "gate(latent).sigmoid()", "torch.cdist(exact, exact)"
WRONG_HEADS = {
    "no decomposition bias": ("branch(input)", "F.linear(input, branch.weight)"),
    "no intra bias": ("gate(latent)", "F.linear(latent, gate.weight)"),
    "no inter bias": ("edge(feature)", "F.linear(feature, edge.weight)"),
    "no classifier bias": ("classifier(embedding)", "classifier(embedding) - self.classifier.bias"),
    "no gradient into gates": ("gate(latent)", "gate(latent.detach())"),
    "sign of the intra gradient": (GATES, f"flipped({GATES})"),
    "no ReLU of messages": ("F.relu(edge(feature))", "edge(feature)"),
    "diagonal": (f"{DISTANCES}.tanh()", f"{DISTANCES}.tanh() + torch.eye(len(latents))"),
    "sign of the inter gradient": (DISTANCES, f"flipped({DISTANCES})"),
    "no inter gradient": (DISTANCES, f"{DISTANCES}.detach()"),
    "delta": ("+ (1 - self.delta) * aware", "+ self.delta * aware"),
    "features": ("torch.stack(features, 1)", "torch.stack(latents, 1)"),
    "reported embedding": ("(logits, embedding,", "(logits, embedding.flip(1),"),
}
"""What is wrong, and the expression of the baseline that another stands for."""

TERMS = {"classification": "= ", "compactness": "one * ", "balance": "two * "}
TERMS["distribution"] = "three * "
WRONG_LOSSES = {
    wrong: (weight + name, weight + wrong)
    for name, weight in TERMS.items()
    for wrong in (f"flipped({name})", f"0 * {name}")
}


def changed(kind: type[nn.Module], old: str, new: str) -> Any:
    """A class of the baseline, with one expression of its source replaced."""
    source, space = inspect.getsource(kind), {**vars(loop), "flipped": flipped}
    assert source.count(old) == 1
    exec(source.replace(old, new), space)
    return space[kind.__name__]


WRONG = {name: version_of(changed(LoopHead, *change)) for name, change in WRONG_HEADS.items()}
WRONG |= {name: version_of(LoopHead, changed(LoopLoss, *c)) for name, c in WRONG_LOSSES.items()}


@DTYPE
@pytest.mark.parametrize("version", WRONG.values(), ids=WRONG)
def test_what_is_off_by_one_term_is_refused(version: Version, dtype: torch.dtype) -> None:
    assert find_disagreement(version, MIDDLE, "training", "cpu", dtype) is not None
