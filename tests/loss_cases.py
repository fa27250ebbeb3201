"""Every loss, with its function and its oracle: what the tests common to all of them run over."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

import oracles
from devices import marks_of, name_of
from fdrl_layers import (
    BalanceLoss,
    CenterLoss,
    CompactnessLoss,
    DistributionLoss,
    FDRLLoss,
    FDRLOutput,
    functional,
)
from strategies import IGNORE_INDEX, Sizes, normal, soft_targets_NK, targets_N

SMALL = Sizes(N=6, P=2, M=3, D=4, K=5)
"""No two sizes alike, so that no two axes can be mistaken for each other."""

RULES = ("alpha", "ema", "gradient")


@dataclass(frozen=True)
class CenterCase:
    """Centers of a loss: the function's argument, the module's prefix, and what they follow."""

    argument: str
    prefix: str
    axes: str
    follows: str
    weight: float = 1.0
    """Of the mean squared distance to these centers in the loss."""


@dataclass(frozen=True)
class LossCase:
    """A loss: how to build it, to feed it, and to name what it gives.

    `axes` are of its inputs, and `device` is where all is but targets, which a test makes.
    """

    loss: type[nn.Module]
    function_name: str
    axes: Mapping[str, str]
    sizes: Mapping[str, str]
    centers: tuple[CenterCase, ...] = ()
    labeled: bool = True
    device: str = "cpu"

    @property
    def function(self) -> Callable[..., Any]:
        """The function that the loss holds centers for."""
        function: Callable[..., Any] = getattr(functional, self.function_name)
        return function

    @property
    def name(self) -> str:
        """What the tests call it."""
        return self.loss.__name__

    def new(self, of: Sizes = SMALL, dtype: torch.dtype = torch.float64, **options: Any) -> Any:
        """A loss without data; one without centers has no type and no rule to be told."""
        options = {"dtype": dtype, "device": self.device, **options}
        if not self.centers:
            options = {k: v for k, v in options.items() if k == "across_ranks"}
        sizes = {name: getattr(of, letter) for name, letter in self.sizes.items()}
        return self.loss(**sizes | options)

    def loaded(self, centers: Mapping[str, Tensor], of: Sizes = SMALL, **options: Any) -> Any:
        """A loss that has met every class, with the given centers."""
        loss = self.new(of, **options)
        state = {}
        for each in self.centers:
            state[f"{each.prefix}value"] = centers[each.argument]
            state[f"{each.prefix}seen"] = torch.ones(len(centers[each.argument]), dtype=torch.bool)
        loss.load_state_dict({**loss.state_dict(), **state})
        return loss

    def inputs(
        self,
        of: Sizes = SMALL,
        seed: int = 0,
        scale: float = 1.0,
        dtype: torch.dtype = torch.float64,
    ) -> dict[str, Tensor]:
        """A batch: latents as a ReLU leaves them, Intra-W positive, others not."""
        drawn = {
            name: normal(*shape(axes, of), seed=seed + i, scale=scale, device=self.device)
            for i, (name, axes) in enumerate(self.axes.items())
        }
        signs = {"latents": torch.relu, "intra_weights": torch.abs}
        return {n: signs.get(n, torch.clone)(value).to(dtype) for n, value in drawn.items()}

    def drawn_centers(
        self, of: Sizes = SMALL, seed: int = 0, scale: float = 1.0
    ) -> dict[str, Tensor]:
        """Centers in float64, by the argument they are."""
        options: dict[str, Any] = {"scale": scale, "device": self.device}
        return {
            each.argument: normal(*shape(each.axes, of), seed=seed + 50 + i, **options)
            for i, each in enumerate(self.centers)
        }

    def train(self, loss: nn.Module, steps: int = 2) -> None:
        """Give a loss batches with labels."""
        for seed in range(steps):
            self.run(loss, self.inputs(seed=seed), labels())

    def held(self, loss: nn.Module) -> dict[str, Tensor]:
        """The centers that the module holds now, by the argument they are."""
        state = loss.state_dict()
        return {each.argument: state[f"{each.prefix}value"].clone() for each in self.centers}

    def arguments(self, inputs: Mapping[str, Any], target: object) -> tuple[Any, ...]:
        """What the module is called with."""
        values: tuple[Any, ...] = tuple(inputs.values())
        if self.loss is FDRLLoss:
            # No loss reads the embedding or Inter-W.
            nothing = torch.empty(0, device=self.device)
            values = (FDRLOutput(embedding=nothing, inter_weights=None, **inputs),)
        return (*values, target) if self.labeled else values

    def run(self, loss: nn.Module, inputs: Mapping[str, Any], target: object) -> dict[str, Tensor]:
        """Call the module and name what it gives."""
        return named(loss(*self.arguments(inputs, target)))

    def apply(
        self, inputs: Mapping[str, Any], target: object, centers: Mapping[str, Any], **options: Any
    ) -> dict[str, Tensor]:
        """Call the function and name what it gives."""
        return named(self.function(*self.arguments(inputs, target), **centers, **options))

    def expect(
        self,
        inputs: Mapping[str, Tensor],
        target: Tensor,
        centers: Mapping[str, Any],
        **options: Any,
    ) -> dict[str, float]:
        """What the oracle says."""
        arrays: dict[str, Any] = {name: array(value) for name, value in inputs.items()}
        if self.loss is FDRLLoss:
            nothing = np.empty(0)
            arrays = {"head": oracles.Head(embedding=nothing, inter_weights=None, **arrays)}
        values = [*arrays.values(), *([target.cpu().numpy()] if self.labeled else [])]
        oracle = getattr(oracles, self.function_name.replace("fdrl", "joint"))
        found = oracle(*values, *(array(c) for c in centers.values()), **options)
        return {"loss": found} if isinstance(found, float) else dict(vars(found))


def shape(axes: str, of: Sizes) -> tuple[int, ...]:
    """The sizes that the letters stand for."""
    return tuple(getattr(of, letter) for letter in axes)


def named(found: Any) -> dict[str, Tensor]:
    """What a loss gave, by name; what `backward` is called on comes first."""
    return {"loss": found} if isinstance(found, Tensor) else dict(vars(found))


def scalar(found: Mapping[str, Tensor]) -> Tensor:
    """What `backward` is called on."""
    return next(iter(found.values()))


def array(values: Tensor) -> NDArray[np.float64]:
    """The tensor for the oracle."""
    return np.asarray(values.detach().double().cpu().numpy())


def targets(of: Sizes) -> st.SearchStrategy[Tensor]:
    """Labels, some or all of them ignored, or soft targets."""
    return st.one_of(
        targets_N(of),
        targets_N(of, ignored=True),
        st.just(torch.full((of.N,), IGNORE_INDEX)),
        soft_targets_NK(of),
    )


def labels(of: Sizes = SMALL, seed: int = 0) -> Tensor:
    """Labels of which the first is ignored and no two neighbors are alike; K - 1 is absent."""
    found = (torch.arange(of.N) + seed) % max(of.K - 1, 1)
    found[:1] = IGNORE_INDEX
    return found


def shares(of: Sizes = SMALL, seed: int = 0) -> Tensor:
    """Soft targets, of which the last class has nothing."""
    found = normal(of.N, of.K, seed=seed + 90, scale=2.0).softmax(1)
    if of.K > 1:
        found[:, -1] = 0
    return found / found.sum(1, keepdim=True)


def each_target_of(cases: Sequence[LossCase]) -> pytest.MarkDecorator:
    """Run a test with each case as `case` and each way to make its target as `target_of`."""
    pairs = [
        pytest.param(
            case,
            partial(_target_at, case.device, target_of),
            id=f"{name_of(case)}-{kind}",
            marks=marks_of(case.device),
        )
        for case in cases
        for kind, target_of in (("hard", labels), ("soft", shares))[: 1 + case.labeled]
    ]
    return pytest.mark.parametrize(("case", "target_of"), pairs)


def _target_at(device: str, target_of: Callable[..., Tensor], *args: Any, **options: Any) -> Tensor:
    return target_of(*args, **options).to(device)


def wanting(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies that want a gradient."""
    return {name: tensor.clone().requires_grad_() for name, tensor in tensors.items()}


def gradients_of(
    loss: Tensor | Mapping[str, Tensor], inputs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The gradient of the loss in each input under its name; 0 where it has no part."""
    total = loss if isinstance(loss, Tensor) else scalar(loss)
    found = torch.autograd.grad(total, list(inputs.values()), materialize_grads=True)
    return dict(zip(inputs, found, strict=True))


def state_of(loss: nn.Module) -> dict[str, Tensor]:
    """A copy of the state, to be held against a later one."""
    return copy.deepcopy(loss.state_dict())


def assert_same_state(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Fail unless both states are equal bit for bit."""
    assert list(actual) == list(expected)
    for key, value in expected.items():
        assert actual[key].dtype == value.dtype, key
        assert torch.equal(actual[key], value), key


BALANCE = LossCase(BalanceLoss, "balance_loss", {"intra_weights": "NM"}, {}, labeled=False)
COMPACTNESS = LossCase(
    CompactnessLoss,
    "compactness_loss",
    {"latents": "NMD"},
    {"latent_dim": "D", "num_latents": "M"},
    (CenterCase("centers", "centers.", "MD", "latents"),),
    labeled=False,
)
DISTRIBUTION = LossCase(
    DistributionLoss,
    "distribution_loss",
    {"intra_weights": "NM"},
    {"num_classes": "K", "num_latents": "M"},
    (CenterCase("centers", "centers.", "KM", "intra_weights"),),
)
CENTER = LossCase(
    CenterLoss,
    "center_loss",
    {"features": "ND"},
    {"num_classes": "K", "num_features": "D"},
    (CenterCase("centers", "centers.", "KD", "features", weight=0.5),),
)
JOINT = LossCase(
    FDRLLoss,
    "fdrl_loss",
    {"logits": "NK", "latents": "NMD", "intra_weights": "NM"},
    {"num_classes": "K", "num_latents": "M", "latent_dim": "D"},
    (
        CenterCase("latent_centers", "compactness.centers.", "MD", "latents", weight=1e-4),
        CenterCase("class_centers", "distribution.centers.", "KM", "intra_weights", weight=1e-4),
    ),
)
CASES = (BALANCE, COMPACTNESS, DISTRIBUTION, CENTER, JOINT)
CENTERED = (COMPACTNESS, DISTRIBUTION, CENTER, JOINT)
LABELED = (DISTRIBUTION, CENTER, JOINT)
