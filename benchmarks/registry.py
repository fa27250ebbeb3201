"""The versions of the head and its losses that are measured against each other.

Every version does the same work from the same parameters. A training step is a forward pass, all
losses with the centers' update, and a backward pass to the parameters and the input, without an
optimizer; inference is the logits alone.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from fdrl_layers import (
    BalanceLoss,
    CompactnessLoss,
    DistributionLoss,
    FDRLHead,
    FDRLLoss,
    FDRLLossOutput,
    FDRLOutput,
    FeatureDecomposition,
    InterRelation,
    IntraRelation,
)
from fdrl_layers.ops.reference.head import reference
from loop_head import LoopHead
from loop_loss import LoopLoss

Mode = Literal["training", "inference"]
LAMBDAS = (1e-4, 1.0, 1e-4)


class Sizes(NamedTuple):
    """Batch, basic-feature width, latents, latent width and classes; the paper's by default."""

    N: int
    P: int = 512
    M: int = 9
    D: int = 128
    K: int = 7


class Batched(nn.Module):
    """The separate layers, one equation after another."""

    def __init__(self, head: FDRLHead) -> None:
        super().__init__()
        intra, inter = head.reconstruction.intra, head.reconstruction.inter
        assert intra is not None
        assert inter is not None
        assert head.classifier is not None
        self.decomposition: FeatureDecomposition = head.decomposition
        self.intra: IntraRelation = intra
        self.inter: InterRelation = inter
        self.classifier, self.delta = head.classifier, head.reconstruction.delta

    def forward(self, input: Tensor) -> FDRLOutput:
        """Equations 1, 7, 10, 11 and 12, and the prediction."""
        latents = self.decomposition(input)
        features, intra_weights = self.intra(latents)
        aware, inter_weights = self.inter(features, need_weights=True)
        embedding = (self.delta * features + (1 - self.delta) * aware).sum(-2)
        logits = self.classifier(embedding)
        return FDRLOutput(logits, embedding, latents, intra_weights, inter_weights)


class Reference(nn.Module):
    """The merged algebra under autograd."""

    def __init__(self, head: FDRLHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, input: Tensor) -> FDRLOutput:
        """Compute the head by its definition."""
        parameters = self.head._parameters_in_order()
        return FDRLOutput(*reference(input, parameters, self.head.reconstruction.delta, "sum"))


class Terms(nn.Module):
    """The separate losses, and their weighted sum."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.compactness = CompactnessLoss(sizes.D, sizes.M)
        self.balance = BalanceLoss()
        self.distribution = DistributionLoss(sizes.K, num_latents=sizes.M)

    def forward(self, output: FDRLOutput, target: Tensor) -> FDRLLossOutput:
        """Equations 2, 5, 6 and 13."""
        terms = (
            nn.functional.cross_entropy(output.logits.float(), target),
            self.compactness(output.latents),
            self.balance(output.intra_weights),
            self.distribution(output.intra_weights, target),
        )
        total = terms[0]
        for weight, term in zip(LAMBDAS, terms[1:], strict=True):
            total = total + weight * term
        return FDRLLossOutput(total, *terms)


@dataclass
class Step:
    """A version at work: call it for one step.

    Attributes:
        run: Does the step.
        model: The head, whose parameters get the gradients; None for the floor.
        input: Basic features; they get a gradient too.
        target: Class indices.
        outputs: What the head gave in the last step, where it was kept.
    """

    run: Callable[[], Any]
    model: nn.Module | None = None
    input: Tensor | None = None
    target: Tensor | None = None
    forward: Callable[[Tensor], FDRLOutput] | None = None


@dataclass(frozen=True)
class Version:
    """A way to compute head and losses.

    Attributes:
        name: As in the results.
        says: One line for the documentation.
        build: Makes the model and the loss of a head with the parameters that all versions share.
        modes: Where it is measured.
        cuda_only: Whether it wants a GPU.
        compiled: The mode of torch.compile, if any.
        only: The batches it is measured at, where not at all.
        graph: Whether a step is captured in a CUDA graph.
    """

    name: str
    says: str
    build: Callable[[FDRLHead, Sizes], tuple[nn.Module, nn.Module]]
    modes: tuple[Mode, ...] = ("training", "inference")
    cuda_only: bool = False
    compiled: str | None = None
    only: tuple[int, ...] | None = None
    graph: bool = False


def _ours(head: FDRLHead, sizes: Sizes) -> tuple[nn.Module, nn.Module]:
    head.backend = "torch"
    return head, _loss(sizes, "torch")


def _loss(sizes: Sizes, backend: Any) -> FDRLLoss:
    return FDRLLoss(sizes.K, num_latents=sizes.M, latent_dim=sizes.D, backend=backend)


def _recomputing(head: FDRLHead, sizes: Sizes) -> tuple[nn.Module, nn.Module]:
    head.recompute = True
    return _ours(head, sizes)


def _triton(head: FDRLHead, sizes: Sizes) -> tuple[nn.Module, nn.Module]:
    head.backend = "triton"
    return head, _loss(sizes, "triton")


def _loop(head: FDRLHead, sizes: Sizes) -> tuple[nn.Module, nn.Module]:
    loop = LoopHead(sizes.P, sizes.K, latent_dim=sizes.D, num_latents=sizes.M)
    loop.load_stacked(head)
    return loop, LoopLoss(sizes.K, num_latents=sizes.M, latent_dim=sizes.D, weights=LAMBDAS)


VERSIONS = (
    Version("loop", "one `nn.Linear` a branch, as public code has it; the baseline", _loop),
    Version(
        "batched",
        "the separate layers and losses, stacked over the latents",
        lambda head, sizes: (Batched(head), Terms(sizes)),
    ),
    Version(
        "reference",
        "the merged algebra under autograd",
        lambda head, sizes: (Reference(head), Terms(sizes)),
    ),
    Version("ours", "`FDRLHead` and `FDRLLoss`, passes by hand", _ours),
    Version("ours recompute", "the same with `recompute=True`", _recomputing, ("training",)),
    Version("ours compiled", "the same under `torch.compile`", _ours, compiled="default"),
    Version(
        "loop compiled",
        "the baseline under `torch.compile`",
        _loop,
        compiled="default",
        only=(64, 1024),
    ),
    Version(
        "ours reduce-overhead",
        "`torch.compile(mode='reduce-overhead')`",
        _ours,
        cuda_only=True,
        compiled="reduce-overhead",
    ),
    Version("triton", "`FDRLHead` and `FDRLLoss`, Triton kernels", _triton, cuda_only=True),
    Version(
        "triton graph",
        "the same, captured in a CUDA graph",
        _triton,
        ("training",),
        cuda_only=True,
        graph=True,
    ),
)

FLOOR = "gemm"
"""The matrix products of the merged form alone: no version can be faster on the same library."""


def shared_head(sizes: Sizes) -> FDRLHead:
    """Return a head with the parameters that all versions share."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return FDRLHead(sizes.P, sizes.K, latent_dim=sizes.D, num_latents=sizes.M)


def batch(sizes: Sizes, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return basic features, as a ReLU and pooling leave them, and labels of every class."""
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(sizes.N, sizes.P, generator=generator).relu()
    target = torch.arange(sizes.N) % sizes.K
    return features.to(device, dtype), target.to(device)


def build(
    version: Version, sizes: Sizes, mode: Mode, device: str = "cpu", dtype: Any = torch.float32
) -> Step:
    """Make a step of a version."""
    model, loss = version.build(shared_head(sizes), sizes)
    model, loss = model.to(device, dtype), loss.to(device)
    input, target = batch(sizes, device, dtype)
    if mode == "inference":
        return _inference(version, model.eval(), input)
    input.requires_grad_()
    leaves = [input, *model.parameters()]

    def losses(input: Tensor, target: Tensor) -> Tensor:
        total: Tensor = loss(model(input), target).total
        return total

    if version.compiled is not None:
        losses = torch.compile(losses, mode=version.compiled)

    def run() -> Tensor:
        for leaf in leaves:
            leaf.grad = None
        total = losses(input, target)
        total.backward()
        return total

    if version.graph:
        return Step(_captured(run), model, input, target, model)
    return Step(run, model, input, target, model)


def _inference(version: Version, model: nn.Module, input: Tensor) -> Step:
    def logits(input: Tensor) -> Tensor:
        found: Tensor = model(input).logits
        return found

    if version.compiled is not None:
        logits = torch.compile(logits, mode=version.compiled)

    @torch.inference_mode()
    def run() -> Tensor:
        return logits(input)

    return Step(run, model, input, None, model)


def _captured(run: Callable[[], Tensor]) -> Callable[[], Any]:
    """Capture a step in a CUDA graph, after steps that leave nothing to set up."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def floor(sizes: Sizes, mode: Mode, device: str = "cpu", dtype: Any = torch.float32) -> Step:
    """Make a step of the matrix products alone, into memory that is there."""
    n, p, m, d, k = sizes

    def new(*shape: int) -> Tensor:
        return torch.randn(shape, device=device, dtype=dtype)

    x, wide, stack, y = new(n, p), new(m * d, p), new(m, 2 * d, d), new(n, d)
    rows, latents, entering = new(n, m * d), new(n, m, d), new(m, n, 2 * d)
    classifier, logits = new(k, d), new(n, k)
    branch = latents.transpose(0, 1)
    out = {
        "latents": new(n, m * d),
        "product": new(m, n, 2 * d),
        "logits": new(n, k),
        "d classifier": new(k, d),
        "d y": new(n, d),
        "d stack": new(m, 2 * d, d),
        "d latents": new(m, n, d),
        "d wide": new(m * d, p),
        "d x": new(n, p),
    }

    @torch.no_grad()
    def run() -> None:
        torch.mm(x, wide.t(), out=out["latents"])
        torch.bmm(branch, stack.mT, out=out["product"])
        torch.mm(y, classifier.t(), out=out["logits"])
        if mode == "inference":
            return
        torch.mm(logits.t(), y, out=out["d classifier"])
        torch.mm(logits, classifier, out=out["d y"])
        torch.bmm(entering.mT, branch, out=out["d stack"])
        torch.bmm(entering, stack, out=out["d latents"])
        torch.mm(rows.t(), x, out=out["d wide"])
        torch.mm(rows, wide, out=out["d x"])

    return Step(run)
