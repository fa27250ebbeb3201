"""Hypothesis strategies named by the shape they give, and random parameters for a head.

Each draws sizes, a seed and a scale, and builds its tensors from a `torch.Generator`: a failing
example is then a handful of small numbers that replay on any machine, and the global generator is
never touched. Letters: N batch, P basic-feature width, M latents, D latent width, K classes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from hypothesis import settings, strategies as st

IGNORE_INDEX = -100

SMALL_INTRA_W = 0.12
"""About 1/9, where the balance loss leads the Intra-W of nine latents; Inter-W is not saturated."""


@dataclass(frozen=True)
class Sizes:
    N: int
    P: int
    M: int
    D: int
    K: int


PAPER = Sizes(N=4, P=512, M=9, D=128, K=7)
"""The paper's widths, on a batch small enough for the oracle's loops."""


def register_profiles() -> None:
    """Register `ci` (the same examples in every run, no time limit) and `dev` (fewer, new ones)."""
    settings.register_profile("ci", derandomize=True, deadline=None)
    settings.register_profile("dev", deadline=None, max_examples=30)


def sizes(min_batch: int = 0) -> st.SearchStrategy[Sizes]:
    """N 0 to 5 (from `min_batch`), P 1 to 9, M 1 to 6, D 1 to 8, K 1 to 6."""
    others = {name: st.integers(1, most) for name, most in {"P": 9, "M": 6, "D": 8, "K": 6}.items()}
    return st.builds(Sizes, N=st.integers(min_batch, 5), **others)


def seeds() -> st.SearchStrategy[int]:
    return st.integers(0, 2**31 - 1)


def scales() -> st.SearchStrategy[float]:
    """From 1e-4 to 1e4; a failing example shrinks to 1."""
    return st.sampled_from((1.0, 1e-2, 1e2, 1e-4, 1e4))


def normal(
    *shape: int,
    seed: int,
    scale: float = 1.0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Normal numbers of the given shape and scale, the same for the same seed on any device."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator, dtype=torch.float64)
    return (values * scale).to(device, dtype)


@st.composite
def latents_NMD(draw: st.DrawFn, of: Sizes | None = None) -> torch.Tensor:
    """Latents as a ReLU leaves them: never negative, many zeros, a fifth of them dead."""
    of = of or draw(sizes())
    seed = draw(seeds())
    alive = normal(of.N, of.M, 1, seed=seed + 1) > -0.84
    values = normal(of.N, of.M, of.D, seed=seed, scale=draw(scales()))
    return values.relu() * alive


@st.composite
def intra_weights_NM(draw: st.DrawFn, of: Sizes | None = None) -> torch.Tensor:
    """Positive Intra-W, up to the D of a printed one."""
    of = of or draw(sizes())
    return of.D * normal(of.N, of.M, seed=draw(seeds())).sigmoid()


@st.composite
def targets_N(draw: st.DrawFn, of: Sizes | None = None, *, ignored: bool = False) -> torch.Tensor:
    """Labels (int64) below K; with `ignored`, about a third of them are `IGNORE_INDEX`."""
    of = of or draw(sizes())
    generator = torch.Generator().manual_seed(draw(seeds()))
    labels = torch.randint(of.K, (of.N,), generator=generator)
    if ignored:
        labels[torch.rand(of.N, generator=generator) < 1 / 3] = IGNORE_INDEX
    return labels


@st.composite
def soft_targets_NK(draw: st.DrawFn, of: Sizes | None = None) -> torch.Tensor:
    """Class probabilities: every row sums to 1."""
    of = of or draw(sizes())
    return normal(of.N, of.K, seed=draw(seeds()), scale=2.0).softmax(dim=1)


def parameters_for(
    of: Sizes,
    seed: int,
    *,
    regime: Literal["default", "small"] = "default",
    bias: bool = True,
    intra: bool = True,
    inter: bool = True,
) -> dict[str, torch.Tensor]:
    """Parameters of a head in float64, under its state-dict keys.

    "default" draws each slice as `nn.Linear` would. Then the printed Intra-W is about D/2, and at
    the paper's widths the tanh of Inter-W is exactly 1: no test sees how it depends on the
    messages. "small" shifts the Intra-RM bias (by -7 for D = 128) so that the printed Intra-W is
    about 0.12 for features of unit scale.
    """
    relations = {"reconstruction.intra": intra, "reconstruction.inter": inter}
    layers: dict[str, tuple[int, ...]] = {
        "decomposition": (of.M, of.D, of.P),
        **{name: (of.M, of.D, of.D) for name, has in relations.items() if has},
        "classifier": (of.K, of.D),
    }
    generator = torch.Generator().manual_seed(seed)
    parameters = {}
    for layer, shape in layers.items():
        parameters[f"{layer}.weight"] = _uniform(shape, shape[-1], generator)
        if bias:
            parameters[f"{layer}.bias"] = _uniform(shape[:-1], shape[-1], generator)
    if regime == "small":
        gate = SMALL_INTRA_W / of.D
        parameters["reconstruction.intra.bias"] += math.log(gate / (1 - gate))
    return parameters


def arguments_of(parameters: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The same parameters as a function takes them: `intra_weight` and so on."""
    return {k.removeprefix("reconstruction.").replace(".", "_"): v for k, v in parameters.items()}


def oracle_arguments(parameters: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    named = arguments_of(parameters).items()
    return {name: tensor.double().cpu().numpy() for name, tensor in named}


def _uniform(shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> torch.Tensor:
    # nn.Linear draws weight and bias alike from (-1, 1) / sqrt(fan_in).
    values = torch.rand(shape, generator=generator, dtype=torch.float64)
    return (2 * values - 1) / math.sqrt(fan_in)
