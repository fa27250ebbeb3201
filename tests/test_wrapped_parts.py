"""Parts that other libraries wrap or parametrize: checkpointing, weight norm and torchao."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.utils import parametrizations, weight_norm

from comparing import assert_close
from fdrl_layers import FDRLHead, FDRLOutput
from fdrl_layers.layers._stacked_linear import StackedLinear

PARTS = ("decomposition", "reconstruction", "reconstruction.intra", "reconstruction.inter")
STACKED = tuple(part for part in PARTS if part != "reconstruction")


def new_head(**options: Any) -> FDRLHead:
    torch.manual_seed(0)
    return FDRLHead(16, 5, latent_dim=8, num_latents=3, dtype=torch.float64, **options)


def put(head: FDRLHead, part: str, module: nn.Module) -> None:
    """Set a part by its dotted name."""
    *path, last = part.split(".")
    setattr(head.get_submodule(".".join(path)), last, module)


def learn(head: FDRLHead, features: torch.Tensor) -> tuple[FDRLOutput, list[torch.Tensor]]:
    """Return the output and the gradients of the parameters."""
    output: FDRLOutput = head(features)
    total = output.logits.square().sum() + output.intra_weights.sum()
    return output, list(torch.autograd.grad(total, list(head.parameters())))


def assert_computes(head: FDRLHead, other: FDRLHead) -> None:
    features = torch.randn(4, 16, dtype=torch.float64)
    (found, gradients), (want, wanted) = learn(head, features), learn(other, features)
    for name, value in vars(want).items():
        assert_close(name, vars(found)[name].detach(), value.detach(), torch.float64)
    for gradient, expected in zip(gradients, wanted, strict=True):
        assert_close("gradient", gradient, expected, torch.float64)


@pytest.mark.parametrize("part", PARTS)
def test_a_checkpointed_part_is_called_and_computes_the_same(part: str) -> None:
    head, plain = new_head(), new_head()
    put(head, part, checkpoint_wrapper(head.get_submodule(part)))
    assert "is a CheckpointWrapper" in head.backend_choice(torch.randn(4, 16).double()).reason
    assert_computes(head, plain)
    assert head.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("part", STACKED)
@pytest.mark.parametrize("kind", ["parametrization", "hook"])
def test_weight_norm_counts_as_a_parametrization_and_as_a_hook(part: str, kind: str) -> None:
    head = new_head()
    module = head.get_submodule(part)
    if kind == "parametrization":
        parametrizations.weight_norm(module)
        scale: torch.Tensor = module.parametrizations.weight.original0  # type: ignore[union-attr, assignment]
    else:
        with pytest.warns(FutureWarning, match="weight_norm"):
            weight_norm(module)
        scale = module.weight_g  # type: ignore[assignment]
    reason = head._reason_to_call_parts()
    assert (reason is None) == (kind == "parametrization")
    assert_outputs_of(head, new_head())
    with torch.no_grad():
        scale.mul_(2)
    plain = new_head()
    with torch.no_grad():
        plain.get_submodule(part).weight.mul_(2)  # type: ignore[operator]
    assert_outputs_of(head, plain)


def assert_outputs_of(head: FDRLHead, other: FDRLHead) -> None:
    features = torch.randn(4, 16, dtype=torch.float64)
    for name, value in vars(other(features)).items():
        assert_close(name, vars(head(features))[name].detach(), value.detach(), torch.float64)


def test_torchao_on_a_stacked_part_fails_rather_than_computes_something_else() -> None:
    torchao = pytest.importorskip("torchao.quantization")
    head, features = FDRLHead(32, 5, latent_dim=32, num_latents=3), torch.randn(4, 32)
    torchao.quantize_(
        head,
        torchao.Int8WeightOnlyConfig(),
        filter_fn=lambda module, name: isinstance(module, StackedLinear),
    )
    assert "Int8Tensor" in str(head._reason_to_call_parts())
    with pytest.raises(NotImplementedError, match="Int8Tensor"):
        head(features)
