"""The versions of the head and its losses that the benchmarks compare.

All versions start from the same parameters. A training step is a forward pass, all losses, and a
backward pass to the parameters and the input, without an optimizer; inference computes the logits.
Our versions update the centers in the step; the baseline computes gradients of its centers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from benchmarks.loop import LoopHead, LoopLoss
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

Mode = Literal["training", "inference"]
Lambdas = tuple[float, float, float]
LAMBDAS: Lambdas = (1e-4, 1.0, 1e-4)
"""The paper's weights of all losses except cross-entropy, in the order of equation 13."""


class Sizes(NamedTuple):
    """Batch size, basic-feature width, latents, latent width and classes; default: the paper's."""

    N: int
    P: int = 512
    M: int = 9
    D: int = 128
    K: int = 7


class Batched(nn.Module):
    """The separate layers, called one after another."""

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
        """Compute equations 1, 7, 10, 11 and 12 and the logits."""
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
        """Compute the head with its reference implementation."""
        parameters = self.head._parameters_in_order()
        return FDRLOutput(*reference(input, parameters, self.head.reconstruction.delta, "sum"))


class Terms(nn.Module):
    """The separate losses and their weighted sum."""

    def __init__(self, sizes: Sizes, lambdas: Lambdas) -> None:
        super().__init__()
        self.lambdas = lambdas
        self.compactness = CompactnessLoss(sizes.D, sizes.M)
        self.balance = BalanceLoss()
        self.distribution = DistributionLoss(sizes.K, num_latents=sizes.M)

    def forward(self, output: FDRLOutput, target: Tensor) -> FDRLLossOutput:
        """Compute equations 2, 5, 6 and 13."""
        terms = (
            nn.functional.cross_entropy(output.logits.float(), target),
            self.compactness(output.latents),
            self.balance(output.intra_weights),
            self.distribution(output.intra_weights, target),
        )
        total = terms[0]
        for weight, term in zip(self.lambdas, terms[1:], strict=True):
            total = total + weight * term
        return FDRLLossOutput(total, *terms)


@dataclass
class Step:
    """A step of a version, ready to run.

    Attributes:
        run: Runs the step.
        model: The head, whose parameters receive the gradients; None for the floor.
        input: Basic features; in training they receive a gradient too.
        target: Class indices; None in inference.
        forward: Computes the head's output alone; None for the floor.
    """

    run: Callable[[], Any]
    model: nn.Module | None = None
    input: Tensor | None = None
    target: Tensor | None = None
    forward: Callable[[Tensor], FDRLOutput] | None = None


class Build(Protocol):
    """Build a model and a loss from a head with the parameters that all versions share."""

    def __call__(  # noqa: D102
        self, head: FDRLHead, sizes: Sizes, lambdas: Lambdas = LAMBDAS
    ) -> tuple[nn.Module, nn.Module]: ...


@dataclass(frozen=True)
class Version:
    """A way to compute head and losses.

    Attributes:
        name: Name in the results.
        description: One-line description for the documentation.
        build: Builds its model and its loss.
        modes: Modes in which it is measured.
        cuda_only: Whether it requires a GPU.
        compiled: The mode of torch.compile; None if it is not compiled.
        batch_sizes: The batch sizes at which it is measured; None for all.
        graph: Whether a step is captured in a CUDA graph.
    """

    name: str
    description: str
    build: Build
    modes: tuple[Mode, ...] = ("training", "inference")
    cuda_only: bool = False
    compiled: str | None = None
    batch_sizes: tuple[int, ...] | None = None
    graph: bool = False


def _loop(head: FDRLHead, sizes: Sizes, lambdas: Lambdas = LAMBDAS) -> tuple[nn.Module, nn.Module]:
    return LoopHead(head), LoopLoss(sizes.K, sizes.M, sizes.D, lambdas)


def _batched(
    head: FDRLHead, sizes: Sizes, lambdas: Lambdas = LAMBDAS
) -> tuple[nn.Module, nn.Module]:
    return Batched(head), Terms(sizes, lambdas)


def _reference(
    head: FDRLHead, sizes: Sizes, lambdas: Lambdas = LAMBDAS
) -> tuple[nn.Module, nn.Module]:
    return Reference(head), Terms(sizes, lambdas)


def _ours(head: FDRLHead, sizes: Sizes, lambdas: Lambdas = LAMBDAS) -> tuple[nn.Module, nn.Module]:
    head.backend = "torch"
    return head, _loss(sizes, lambdas, "torch")


def _recomputing(
    head: FDRLHead, sizes: Sizes, lambdas: Lambdas = LAMBDAS
) -> tuple[nn.Module, nn.Module]:
    head.recompute = True
    return _ours(head, sizes, lambdas)


def _triton(
    head: FDRLHead, sizes: Sizes, lambdas: Lambdas = LAMBDAS
) -> tuple[nn.Module, nn.Module]:
    head.backend = "triton"
    return head, _loss(sizes, lambdas, "triton")


def _loss(sizes: Sizes, lambdas: Lambdas, backend: Any) -> FDRLLoss:
    compactness, balance, distribution = lambdas
    return FDRLLoss(
        sizes.K,
        num_latents=sizes.M,
        latent_dim=sizes.D,
        lambda_compactness=compactness,
        lambda_balance=balance,
        lambda_distribution=distribution,
        backend=backend,
    )


BASELINE = "loop"
"""The version with which the times of all others are compared."""

VERSIONS = (
    Version(
        BASELINE,
        "one `nn.Linear` a branch and the rest stacked, as a good user writes it; the baseline",
        _loop,
    ),
    Version("batched", "the separate layers and losses, stacked over the latents", _batched),
    Version("reference", "the merged algebra under autograd", _reference),
    Version("ours", "`FDRLHead` and `FDRLLoss`, passes by hand", _ours),
    Version("ours recompute", "the same with `recompute=True`", _recomputing, ("training",)),
    Version("ours compiled", "the same under `torch.compile`", _ours, compiled="default"),
    Version(
        "loop compiled",
        "the baseline under `torch.compile`",
        _loop,
        compiled="default",
        batch_sizes=(64, 1024),
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
"""The matrix products of the merged form alone, the lower bound with the same library."""


def make_shared_head(sizes: Sizes) -> FDRLHead:
    """Return a head with the parameters that all versions share."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return FDRLHead(sizes.P, sizes.K, latent_dim=sizes.D, num_latents=sizes.M)


def make_batch(sizes: Sizes, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return basic features, non-negative as after ReLU and pooling, and labels of all classes."""
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(sizes.N, sizes.P, generator=generator).relu()
    target = torch.arange(sizes.N) % sizes.K
    return features.to(device, dtype), target.to(device)


def build_step(
    version: Version,
    sizes: Sizes,
    mode: Mode,
    device: str = "cpu",
    dtype: Any = torch.float32,
    *,
    head: FDRLHead | None = None,
    lambdas: Lambdas = LAMBDAS,
) -> Step:
    """Build a step of a version from the shared parameters or from those of a given head."""
    model, loss = version.build(head or make_shared_head(sizes), sizes, lambdas)
    model, loss = model.to(device, dtype), loss.to(device)
    input, target = make_batch(sizes, device, dtype)
    if mode == "inference":
        return _inference(version, model.eval(), input)
    input.requires_grad_()
    leaves = [input, *model.parameters(), *loss.parameters()]

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
        return Step(capture_graph(run), model, input, target, model)
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


def capture_graph(run: Callable[[], object]) -> Callable[[], Any]:
    """Capture a step in a CUDA graph after warm-up steps."""
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


def make_floor_step(
    sizes: Sizes, mode: Mode, device: str = "cpu", dtype: Any = torch.float32
) -> Step:
    """Build a step of the matrix products alone, with preallocated outputs."""
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
