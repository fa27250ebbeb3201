from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn

from fdrl_layers.backbones.dry_run import blank_images, like, run_blank, without_trace


class Restless(nn.Module):
    """Changes everything that a forward pass can change."""

    cache: Tensor | None
    count: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.normalization = nn.BatchNorm2d(4)
        self.register_buffer("count", torch.zeros(2))
        self.register_buffer("total", torch.zeros(()))
        self.register_buffer("cache", None)
        self.heard: list[bool] = []

    def forward(self, images: Tensor) -> Tensor:
        self.heard.append(self.training)
        self.count += torch.rand(2)
        self.total = self.total + 1
        self.cache = self.total
        self.register_buffer("late", torch.zeros(1))
        assert not self.normalization.training
        return self.normalization(self.convolution(images))  # type: ignore[no-any-return]


def test_leaves_no_trace() -> None:
    module = Restless().train()
    module.convolution.eval()
    before = {name: (id(buffer), buffer.tolist()) for name, buffer in module.named_buffers()}
    random = torch.get_rng_state()
    output = run_blank(module, torch.zeros(2, 3, 8, 8))
    assert module.heard == [False]
    trained = [part.training for part in (module, module.normalization, module.convolution)]
    assert trained == [True, True, False]
    assert {name: (id(b), b.tolist()) for name, b in module.named_buffers()} == before
    assert module.cache is None
    assert not hasattr(module, "late")
    assert torch.equal(random, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert not output.requires_grad


def test_leaves_no_trace_of_a_failure() -> None:
    module = Restless().train()
    random = torch.get_rng_state()
    with pytest.raises(ValueError, match=r"\(2, 1, 8, 8\).*`image_size` or `in_channels`"):
        run_blank(module, torch.zeros(2, 1, 8, 8))
    assert module.training
    assert module.count.tolist() == [0, 0]
    assert torch.equal(random, torch.get_rng_state())


def test_keeps_a_waiting_backward_pass_alive() -> None:
    module = nn.BatchNorm2d(3).eval()
    loss = module(torch.rand(2, 3, 4, 4)).sum()
    with without_trace(module):
        module(torch.rand(2, 3, 4, 4))
    loss.backward()
    assert module.weight.grad is not None


def test_heeds_no_override_of_train() -> None:
    module = nn.Linear(2, 2)
    object.__setattr__(module, "train", Mock(side_effect=AssertionError))
    with without_trace(module):
        pass


@pytest.mark.cuda
def test_leaves_no_trace_in_the_random_state_of_a_gpu() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3)).cuda()
    module.register_forward_hook(lambda *_: torch.rand(3, device="cuda") and None)
    before = torch.cuda.get_rng_state()
    run_blank(module, blank_images(module, 8))
    assert torch.equal(before, torch.cuda.get_rng_state())


@pytest.mark.parametrize(
    ("name", "value", "sides"),
    [
        ("nothing", None, (224, 224)),
        ("default_cfg", {"input_size": (3, 96, 80)}, (96, 80)),
        ("default_cfg", {}, (224, 224)),
        ("patch_embed", SimpleNamespace(img_size=(64, 48)), (64, 48)),
        ("image_size", 112, (112, 112)),
        ("config", SimpleNamespace(image_size=32), (32, 32)),
        ("config", SimpleNamespace(image_size=[32, 40]), (32, 40)),
        ("config", SimpleNamespace(image_size=None), (224, 224)),
    ],
)
def test_reads_the_size_that_a_backbone_expects(
    name: str, value: Any, sides: tuple[int, int]
) -> None:
    backbone = nn.Sequential(nn.Conv2d(1, 4, 3))
    setattr(backbone, name, value)
    assert blank_images(backbone).shape == (2, 1, *sides)


def test_makes_images_like_the_backbone() -> None:
    backbone = nn.Sequential(nn.Conv2d(5, 4, 3, dtype=torch.bfloat16))
    assert like(backbone) == {"device": torch.device("cpu"), "dtype": torch.bfloat16}
    images = blank_images(backbone, (16, 8))
    assert (images.shape, images.dtype) == ((2, 5, 16, 8), torch.bfloat16)
    assert blank_images(nn.Flatten(), 8, in_channels=2).shape == (2, 2, 8, 8)


@pytest.mark.parametrize(
    ("size", "channels", "error", "match"),
    [
        (0, 3, ValueError, "`image_size` must be at least 1, got 0"),
        (8.0, 3, TypeError, "`image_size` must be"),
        ((8, 8, 8), 3, ValueError, r"`image_size` must be one size or \(height, width\)"),
        (8, 0, ValueError, "`in_channels` must be at least 1, got 0"),
        (8, None, ValueError, "`in_channels` must be given"),
    ],
)
def test_rejects_sizes(size: Any, channels: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        blank_images(nn.Flatten(), size, channels)


def test_rejects_a_lazy_backbone() -> None:
    with pytest.raises(ValueError, match="`backbone` has lazy parameters"):
        run_blank(nn.LazyConv2d(4, 3), torch.zeros(2, 3, 8, 8))
