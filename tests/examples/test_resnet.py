"""The residual networks for small images, against torchvision's where both can be had."""

import pytest
import torch
from torchvision.models import resnet18

from comparing import assert_close
from fer.model.resnet import BLOCKS, ResNet


def test_at_full_size_it_is_torchvisions_resnet_18() -> None:
    theirs = resnet18()
    theirs.fc = torch.nn.Identity()
    ours = ResNet(BLOCKS["resnet18"], 64, small=False)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(3, 3, 40, 48)
    for mode in (True, False):
        got, want = ours.train(mode)(images), theirs.train(mode)(images)
        assert_close("features", {"features": got}, {"features": want})


@pytest.mark.parametrize(
    ("small", "stride", "side"), [(True, 2, 3), (False, 2, 2), (True, 1, 6), (False, 1, 3)]
)
def test_small_stem_and_last_stride_keep_more_places(small: bool, stride: int, side: int) -> None:
    backbone = ResNet(BLOCKS["resnet10"], 16, small=small, last_stride=stride)
    backbone.avgpool = torch.nn.Identity()
    assert backbone(torch.randn(2, 3, 42, 42)).shape == (2, 128 * side * side)


def test_convolutions_are_as_many_as_the_name_says_and_start_as_torchvisions_do() -> None:
    backbone = ResNet(BLOCKS["resnet10"], 32, small=True)
    # With the stem and a classifier, the number in the name.
    assert len([name for name, _ in backbone.named_parameters() if ".conv" in name]) == 8
    for name, weight in backbone.named_parameters():
        if weight.ndim == 4:
            out, _, *size = weight.shape
            fan_out = out * size[0] * size[1]
            assert weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1), name
