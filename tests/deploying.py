"""A whole model as people ship it, and the comparison of what ships with what trained."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from comparing import assert_close
from fdrl_layers import FDRLHead, FDRLOutput
from strategies import normal

BATCHES = (1, 3, 17)
FIELDS = ("logits", "embedding", "latents", "intra_weights", "inter_weights")


def head(**options: Any) -> FDRLHead:
    """A head of the paper's sizes. Its Intra-W is a mean, so that no tanh is saturated."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return FDRLHead(512, 7, **({"reduction": "mean"} | options)).eval()


def whole_model() -> nn.Sequential:
    """A ResNet-18 with a head on it, in evaluation; 32 pixels are enough for it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        backbone = resnet18()
    backbone.fc = nn.Identity()
    return nn.Sequential(backbone, head()).eval()


def images(number: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Noise of the size of small faces."""
    return normal(number, 3, 32, 32, seed=seed, dtype=dtype)


def features(number: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Basic features, as a ResNet-18 gives them."""
    return normal(number, 512, seed=seed, dtype=dtype).relu()


def named(output: FDRLOutput) -> dict[str, Tensor]:
    """The five fields of an output with both relations."""
    return {name: getattr(output, name) for name in FIELDS}


def largest_errors(found: Mapping[str, Any], expected: FDRLOutput) -> dict[str, float]:
    """The largest error in each field, as a share of its largest value."""
    errors = {}
    for name, value in named(expected).items():
        difference = torch.as_tensor(found[name]).double() - value.double()
        errors[name] = (difference.abs().max() / value.double().abs().max()).item()
    return errors


@torch.no_grad()
def check_batches(
    way: str,
    run: Callable[[Tensor], Mapping[str, Any]],
    model: nn.Module,
    batch: Callable[..., Tensor],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Hold `run` against the model in eager mode on three batches, and print the errors."""
    for number in BATCHES:
        x = batch(number, seed=number, dtype=dtype)
        found, expected = run(x), model(x)
        errors = ", ".join(f"{k} {v:.1e}" for k, v in largest_errors(found, expected).items())
        print(f"{way}, {dtype}, batch of {number}: {errors}")
        assert_close(f"{way}, batch of {number}", found, named(expected), dtype)
