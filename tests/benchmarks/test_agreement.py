"""What is right passes in every type, and what is off by one term is refused in every type."""

from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.agreement import disagreement, expected_results, rounded_head
from benchmarks.loop import LoopHead, LoopLoss
from benchmarks.registry import LAMBDAS, VERSIONS, Lambdas, Mode, Sizes, Version, batch, build
from comparing import assert_close
from fdrl_layers import FDRLHead, FDRLLossOutput, FDRLOutput
from layer_cases import Regime

TINY = Sizes(N=14, P=24, M=3, D=32, K=4)
MIDDLE = Sizes(N=16, P=64, M=5, D=64, K=7)
Pair = tuple[nn.Module, nn.Module]
EAGER = [version for version in VERSIONS if not version.compiled and not version.cuda_only]
DTYPE = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)


@DTYPE
@pytest.mark.parametrize(
    ("version", "mode"),
    [pytest.param(v, mode, id=f"{v.name}, {mode}") for v in EAGER for mode in v.modes],
)
def test_versions_agree_with_the_loop(version: Version, mode: Mode, dtype: torch.dtype) -> None:
    for sizes in (TINY, TINY._replace(N=1)):
        assert disagreement(version, sizes, mode, "cpu", dtype) is None


@DTYPE
@pytest.mark.parametrize("batch", [1, 64])
def test_baseline_and_reference_agree_at_the_papers_widths(batch: int, dtype: torch.dtype) -> None:
    for version in VERSIONS:
        if version.name in ("loop", "reference"):
            assert disagreement(version, Sizes(batch), "training", "cpu", dtype) is None


@DTYPE
@pytest.mark.parametrize("regime", get_args(Regime))
def test_both_start_from_what_the_type_holds(regime: Regime, dtype: torch.dtype) -> None:
    head = rounded_head(TINY, dtype, regime)
    parameters = dict(head.named_parameters())
    for name, value in parameters.items():
        assert torch.equal(value.to(dtype).float(), value), name
    features = batch(TINY, "cpu", dtype)[0].double()
    wide = torch.einsum("np,mdp->nmd", features, parameters["decomposition.weight"].double())
    expected = expected_results(head, TINY, "inference", dtype, LAMBDAS)
    latents = (wide + parameters["decomposition.bias"].double()).relu()
    assert_close("latents", expected["latents"], latents, torch.float64)


def test_gradients_of_centers_are_of_one_step() -> None:
    losses: list[nn.Module] = []

    def make(head: FDRLHead, sizes: Sizes, lambdas: Lambdas = LAMBDAS) -> Pair:
        losses.append(LoopLoss(sizes.K, sizes.M, sizes.D, lambdas))
        return LoopHead(head), losses[0]

    step = build(Version("loop", "", make), TINY, "training")
    runs = []
    for _ in range(2):
        step.run()
        runs.append([p.grad.clone() for p in losses[0].parameters() if p.grad is not None])
    assert len(runs[0]) == 2
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def flipped(value: Tensor) -> Tensor:
    """The same value, with the wrong sign of its gradient."""
    return 2 * value.detach() - value


class WrongHead(LoopHead):
    """The baseline, in one long method and with one thing wrong."""

    def __init__(self, head: FDRLHead, wrong: str) -> None:
        super().__init__(head)
        self.wrong = wrong

    def forward(self, input: Tensor) -> FDRLOutput:
        is_wrong = self.wrong.__eq__

        def linear(branch: nn.Module, of: Tensor, name: str) -> Tensor:
            assert isinstance(branch, nn.Linear)
            bias = None if is_wrong(f"no {name} bias") else branch.bias
            return F.linear(of, branch.weight, bias)

        latents = [F.relu(linear(b, input, "decomposition")) for b in self.decomposition]
        reached = [b.detach() if is_wrong("no gradient into gates") else b for b in latents]
        gates = zip(self.intra, reached, strict=True)
        weights = [linear(g, b, "intra").sigmoid().sum(1, keepdim=True) for g, b in gates]
        if is_wrong("sign of the intra gradient"):
            weights = [flipped(weight) for weight in weights]
        features = [w * b for w, b in zip(weights, latents, strict=True)]
        edges = zip(self.inter, features, strict=True)
        sums = torch.stack([linear(e, f, "inter") for e, f in edges], 1)
        messages = sums if is_wrong("no ReLU of messages") else F.relu(sums)
        inter_weights = torch.cdist(messages.float(), messages.float()).tanh()
        if is_wrong("diagonal"):
            inter_weights = inter_weights + torch.eye(len(latents))
        if is_wrong("sign of the inter gradient"):
            inter_weights = flipped(inter_weights)
        if is_wrong("no inter gradient"):
            inter_weights = inter_weights.detach()
        aware = inter_weights.to(messages.dtype) @ messages
        delta = 1 - self.delta if is_wrong("delta") else self.delta
        own = torch.stack(latents if is_wrong("features") else features, 1)
        embedding = (delta * own + (1 - delta) * aware).sum(1)
        logits = linear(self.classifier, embedding, "classifier")
        if is_wrong("reported embedding"):
            embedding = embedding.flip(1)
        return FDRLOutput(
            logits, embedding, torch.stack(latents, 1), torch.cat(weights, 1), inter_weights
        )


class WrongLoss(LoopLoss):
    """The baseline's loss, with the sign of one term's gradient wrong, or without the term."""

    def __init__(self, sizes: Sizes, lambdas: Lambdas, wrong: str) -> None:
        super().__init__(sizes.K, sizes.M, sizes.D, lambdas)
        self.wrong = wrong

    def forward(self, output: FDRLOutput, target: Tensor) -> FDRLLossOutput:
        found = super().forward(output, target)
        how, _, name = self.wrong.partition(" ")
        term = getattr(found, name)
        weight = dict(zip(LOSSES, (1.0, *self.lambdas), strict=True))[name]
        change = flipped(term) - term if how == "flipped" else -term
        return FDRLLossOutput(found.total + weight * change, *list(vars(found).values())[1:])


LOSSES = ("classification", "compactness", "balance", "distribution")
WRONG = (
    *(f"no {name} bias" for name in ("decomposition", "intra", "inter", "classifier")),
    *("no gradient into gates", "sign of the intra gradient", "no ReLU of messages", "diagonal"),
    *("sign of the inter gradient", "no inter gradient", "delta", "features"),
    "reported embedding",
)
WRONG_LOSSES = tuple(f"{how} {name}" for how in ("flipped", "no") for name in LOSSES)


@DTYPE
@pytest.mark.parametrize("wrong", ["nothing", *WRONG, *WRONG_LOSSES])
def test_what_is_off_by_one_term_is_refused(wrong: str, dtype: torch.dtype) -> None:
    def make(head: FDRLHead, sizes: Sizes, lambdas: Lambdas = LAMBDAS) -> Pair:
        if wrong in WRONG_LOSSES:
            return LoopHead(head), WrongLoss(sizes, lambdas, wrong)
        return WrongHead(head, wrong), LoopLoss(sizes.K, sizes.M, sizes.D, lambdas)

    found = disagreement(Version("wrong", "", make), MIDDLE, "training", "cpu", dtype)
    assert (found is None) == (wrong == "nothing")
