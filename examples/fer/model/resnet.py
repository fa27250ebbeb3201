"""Residual networks for small images: narrower, shallower, or with a stem of higher resolution.

torchvision's ResNet has 64 channels and divides an image's sides by four before its first block,
which leaves 2 x 2 places of a 64 x 64 face at the end. The parameters have torchvision's names, so
that weights of both kinds are read in the same way.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

BLOCKS = {"resnet10": (1, 1, 1, 1), "resnet18": (2, 2, 2, 2)}
"""Residual blocks of each of the four stages."""


class ResNet(nn.Module):
    """A residual network without a classifier: images (N, 3, H, W) in, basic features (N, P) out.

    Args:
        blocks: Number of blocks of each of four stages; all stages but the first halve the sides.
        width: Channels of the first stage; the last stage has eight times as many.
        small: Whether the stem is a 3 x 3 convolution that halves the sides, instead of a 7 x 7
            convolution followed by max pooling, which quarters them.
        last_stride: Stride of the last stage; 1 keeps the sides, so that the maps have four times
            as many places.
    """

    def __init__(
        self, blocks: Sequence[int], width: int, *, small: bool, last_stride: int = 2
    ) -> None:
        super().__init__()
        size = 3 if small else 7
        self.conv1 = nn.Conv2d(3, width, size, stride=2, padding=size // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(width, width, blocks[0], stride=1)
        self.layer2 = _stage(width, 2 * width, blocks[1], stride=2)
        self.layer3 = _stage(2 * width, 4 * width, blocks[2], stride=2)
        self.layer4 = _stage(4 * width, 8 * width, blocks[3], stride=last_stride)
        self.avgpool: nn.Module = nn.AdaptiveAvgPool2d(1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return the basic features (N, P) of images (N, 3, H, W)."""
        maps = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        pooled: Tensor = self.avgpool(maps)
        return pooled.flatten(1)


def _stage(before: int, after: int, blocks: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride > 1 or before != after:
        shortcut = nn.Sequential(
            nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
        )
    first = BasicBlock(before, after, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(after, after) for _ in range(blocks - 1)))
