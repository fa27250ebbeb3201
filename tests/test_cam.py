import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import Permute

from fdrl_layers import FDRLHead, FDRLModel, latent_cam

SIDE = 8
GATE = 2.0
PLACES = ((1, 2), (6, 5))


def looking_model(*, sign: float = 1.0) -> FDRLModel:
    """A model of two latents, of which the first sees channel 0 alone, and the second channel 1."""
    backbone = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), nn.ReLU(inplace=True))
    head = FDRLHead(2, 3, latent_dim=1, num_latents=2, bias=False)
    intra = head.reconstruction.intra
    assert intra is not None
    with torch.no_grad():
        backbone[0].weight.copy_(torch.eye(2)[:, :, None, None])  # type: ignore[operator]
        head.decomposition.weight.copy_(torch.eye(2)[:, None, :])
        intra.weight.fill_(sign * GATE)
    return FDRLModel(backbone, head)


def drawn_model(width: int, *layers: nn.Module, **options: Any) -> FDRLModel:
    """A model of layers that give maps of so many channels."""
    head = FDRLHead(width, 3, latent_dim=5, num_latents=3)
    return FDRLModel(nn.Sequential(*layers), head, **options)


def shining() -> Tensor:
    """An image whose channel c is 3 at the c-th of the places and 0 elsewhere."""
    image = torch.zeros(1, len(PLACES), SIDE, SIDE)
    for channel, (row, column) in enumerate(PLACES):
        image[0, channel, row, column] = 3
    return image


@pytest.mark.parametrize("latent", [0, 1])
def test_lights_up_where_the_latent_looks_frozen_or_not(latent: int, device: str) -> None:
    model = looking_model().to(device)
    found = latent_cam(model, shining().to(device), latent, model.backbone)
    assert found.shape == (1, SIDE, SIDE)
    assert found.nonzero().tolist() == [[0, *PLACES[latent]]]
    # omega = sigmoid(g m) with m = 3 / HW, the mean of its channel; alpha = omega' / HW.
    m = 3 / SIDE**2
    omega = 1 / (1 + math.exp(-GATE * m))
    alpha = GATE * omega * (1 - omega) / SIDE**2
    assert found.max().item() == pytest.approx(3 * alpha, rel=1e-5)
    model.requires_grad_(False)
    assert torch.equal(latent_cam(model, shining().to(device), latent, model.backbone), found)


def test_shows_nothing_that_lowers_the_weight() -> None:
    model = looking_model(sign=-1)
    found = latent_cam(model, shining(), 0, model.backbone[0])  # type: ignore[index]
    assert found.abs().max() == 0


def test_samples_do_not_mix() -> None:
    torch.manual_seed(0)
    first = nn.Conv2d(2, 4, 3, stride=2)
    model = drawn_model(4, first, nn.BatchNorm2d(4), nn.ReLU(), pool="mean")
    images = torch.randn(3, 2, 9, 9)
    together = latent_cam(model, images, 1, first)
    alone = torch.cat([latent_cam(model, one[None], 1, first) for one in images])
    torch.testing.assert_close(together, alone)


def test_is_interpolated_from_the_layer_to_the_image() -> None:
    torch.manual_seed(0)
    model = drawn_model(4, nn.Conv2d(2, 4, 2, stride=2), nn.Sigmoid(), pool="mean")
    images = torch.randn(2, 2, 6, 8)
    maps = model.backbone(images).detach().requires_grad_()
    weight = model.head(maps.mean((2, 3))).intra_weights[:, 2]
    (gradient,) = torch.autograd.grad(weight.sum(), maps)
    expected = (gradient.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu()
    expected = F.interpolate(expected, (6, 8), mode="bilinear", align_corners=False)
    found = latent_cam(model, images, 2, model.backbone)
    torch.testing.assert_close(found, expected[:, 0].detach())


def test_agrees_with_captum() -> None:
    attribution = pytest.importorskip("captum.attr")
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(5)
    model = drawn_model(5, nn.Conv2d(2, 5, 3, stride=2), norm, nn.ReLU()).eval()
    images = torch.randn(2, 2, 9, 9)
    explain = attribution.LayerGradCam(lambda x: model(x).intra_weights, norm)
    maps = explain.attribute(images, target=1, relu_attributions=True)
    expected = attribution.LayerAttribution.interpolate(maps, (9, 9), "bilinear")[:, 0]
    assert expected.abs().max() > 0
    torch.testing.assert_close(latent_cam(model, images, 1, norm), expected.detach())


def test_leaves_the_model_as_it_was() -> None:
    first = nn.Conv2d(2, 4, 3)
    model = drawn_model(4, first, nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    with torch.no_grad():
        found = latent_cam(model, torch.randn(2, 2, 8, 8), 0, first)
    assert not found.requires_grad
    assert all(part.training for part in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not first._forward_hooks
    assert not torch.equal(random, torch.get_rng_state()), "randn drew, and only that"


@pytest.mark.parametrize(
    ("images", "latent", "error", "match"),
    [
        (shining(), 2, ValueError, "`latent` must be below 2, got 2"),
        (shining(), -1, ValueError, "`latent` must be at least 0, got -1"),
        (shining(), 1.0, TypeError, "`latent` must be an integer, got float"),
        (shining().byte(), 0, TypeError, r"`images` must be floating point, got torch\.uint8"),
    ],
    ids=lambda value: "" if isinstance(value, Tensor) else None,
)
def test_rejects(images: Tensor, latent: int, error: type[Exception], match: str) -> None:
    model = looking_model()
    with pytest.raises(error, match=match):
        latent_cam(model, images, latent, model.backbone)


def test_rejects_a_layer() -> None:
    model, image = looking_model(), shining()
    with pytest.raises(ValueError, match="`layer` must run once in `model`, it ran 0 times"):
        latent_cam(model, image, 0, nn.ReLU())
    with pytest.raises(ValueError, match=r"`layer` must give maps \(N, C, H, W\), got FDRLOutput"):
        latent_cam(model, image, 0, model.head)
    assert not model.head._forward_hooks
    twice = nn.ReLU()
    model.backbone = nn.Sequential(twice, model.backbone, twice)
    with pytest.raises(ValueError, match="it ran 2 times"):
        latent_cam(model, image, 0, twice)


def test_reads_maps_with_their_channels_last() -> None:
    torch.manual_seed(0)
    first, last = nn.Conv2d(2, 5, 3, stride=2), Permute([0, 2, 3, 1])
    model = drawn_model(5, first, last)
    images = torch.randn(2, 2, 9, 9)
    expected = latent_cam(model, images, 1, first)
    assert expected.abs().max() > 0
    torch.testing.assert_close(latent_cam(model, images, 1, last, channels_last=True), expected)
    with pytest.raises(ValueError, match=r"\(N, C, H, W\), got \(2, 4, 4, 5\).*channels_last=True"):
        latent_cam(model, images, 1, last)
    with pytest.raises(ValueError, match=r"\(N, H, W, C\), got .*channels_last=False"):
        latent_cam(model, images, 1, first, channels_last=True)


def test_rejects_a_model_without_intra_relation() -> None:
    backbone = nn.Conv2d(2, 4, 3)
    model = FDRLModel(backbone, FDRLHead(4, 3, intra=False))
    with pytest.raises(ValueError, match="`model` must have Intra-RM"):
        latent_cam(model, torch.randn(2, 2, 8, 8), 0, backbone)
