"""The joint loss's operator: a step of it, and its check in any type and by any backend."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from comparing import assert_close
from devices import OF_KERNELS
from fdrl_layers import FDRLLoss
from loss_cases import JOINT, SMALL, LossCase, gradients_of
from strategies import IGNORE_INDEX, Sizes

OF_TRITON = replace(JOINT, device=OF_KERNELS)
WIDE = Sizes(N=37, P=1, M=3, D=32, K=5)
"""Which kernels know too."""

WEIGHTS = {"lambda_compactness": 0.3, "lambda_balance": 0.7, "lambda_distribution": 0.2}
TERMS = ("total", "classification", "compactness", "balance", "distribution")
ALONE = (1.0, 0.0, 0.0, 0.0, 0.0)


def loss(of: Sizes = SMALL, case: LossCase = JOINT, **options: Any) -> FDRLLoss:
    found = case.new(of, **WEIGHTS | {"center_rate": 0.4} | options)
    assert isinstance(found, FDRLLoss)
    return found


def batch(
    of: Sizes, case: LossCase, dtype: torch.dtype = torch.float32, seed: int = 0
) -> dict[str, Tensor]:
    """A batch as a head in `dtype` gives it: Intra-W in float32 at least."""
    inputs = {k: v.to(dtype) for k, v in case.inputs(of, seed).items()}
    if dtype != torch.float64:
        inputs["intra_weights"] = inputs["intra_weights"].float()
    return inputs


def labels(of: Sizes = WIDE, seed: int = 0, ignored: int = 3) -> Tensor:
    """Labels of which every `ignored`-th is, and the last class is absent."""
    found = (torch.arange(of.N) + seed) % max(of.K - 1, 1)
    if ignored:
        found[::ignored] = IGNORE_INDEX
    return found


def step(
    criterion: FDRLLoss,
    inputs: dict[str, Tensor],
    target: Tensor,
    weights: tuple[float, ...] = ALONE,
) -> dict[str, Tensor]:
    """The terms of a batch, and the gradients of their weighted sum."""
    # No clone: it would put in order what is strided.
    leaves = {k: v.detach().requires_grad_() for k, v in inputs.items()}
    terms = JOINT.run(criterion, leaves, target.to(inputs["logits"].device))
    chosen = [w * terms[name] for w, name in zip(weights, TERMS, strict=True) if w]
    found = gradients_of(torch.stack(chosen).sum(), leaves)
    return {k: v.detach() for k, v in terms.items()} | {f"d {k}": v for k, v in found.items()}


def check(
    of: Sizes, case: LossCase, dtype: torch.dtype, backend: str, ignored: int = 3, **options: Any
) -> None:
    """Hold three steps by a backend, from features in a type, against the passes in float64."""
    ours = loss(of, case, dtype=torch.float32, backend=backend, **options)
    exact = loss(of, case, backend="torch", **options)
    for seed, weights in enumerate((ALONE, (1.0, 2.0, 3.0, 4.0, 5.0), (0.0, 0.0, 1.0, 0.0, 1.0))):
        inputs, target = batch(of, case, dtype, seed), labels(of, seed, ignored)
        wide = {k: v.double() for k, v in inputs.items()}
        found = step(ours, inputs, target, weights)
        # What starts with a batch is held against its mean, which is taken off after the squares.
        squares = {k: float(v.square().sum() / of.N) for k, v in wide.items()}
        sizes = {"compactness": squares["latents"], "distribution": squares["intra_weights"]}
        sizes["total"] = max(sizes.values())
        for name, want in step(exact, wide, target, weights).items():
            given = inputs.get(name.removeprefix("d "))
            size = sizes.get(name, 0.0) if given is None else want.abs().max().item()
            assert found[name].dtype == (torch.float32 if given is None else given.dtype)
            assert_close(name, found[name], want, scale=size)
        expected = exact.state_dict()
        for key, value in ours.state_dict().items():
            if value.is_floating_point():
                assert_close(key, value, expected[key])
            else:
                assert torch.equal(value, expected[key]), key
