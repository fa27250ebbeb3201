"""A batch too large for memory, through the backbone in parts, with the whole batch's losses.

Adding up the gradients of parts would average losses that are not averages (the balance loss is
the distance of the batch's mean), and move the centers once a part. So the parts go through the
backbone twice, once without a graph: head and losses see all features at once, and each part then
gets the gradient of its own. Only batch normalization sees parts (Gao et al. 2021, "gradient
cache").
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fdrl_layers import FDRLOutput
from fer.model.build import losses_of
from fer.training import precision

if TYPE_CHECKING:
    from fer.training.run import Run


def backward_in_parts(
    run: "Run", images: Tensor, targets: Tensor
) -> tuple[dict[str, Tensor], FDRLOutput | Tensor]:
    """Compute the gradients of a batch in `accumulate` parts, averaged over processes."""
    options, device = run.options, run.ranks.device
    backbone, head = run.model[0], run.model[1]
    parts = images.tensor_split(options.accumulate)
    with torch.no_grad(), _statistics_at_rest(backbone), precision.autocast(options, device):
        features = torch.cat([backbone(part) for part in parts])
    features.requires_grad_()
    with precision.autocast(options, device):
        output = head(features)
    losses = losses_of(run.criterion, output, targets)
    run.scaler.scale(losses["total"]).backward()
    assert features.grad is not None
    if not options.freeze_backbone:
        gradients = features.grad.tensor_split(options.accumulate)
        for part, gradient in zip(parts, gradients, strict=True):
            with precision.autocast(options, device):
                again = backbone(part)
            again.backward(gradient)
    run.ranks.average_gradients(run.model.parameters())
    return losses, output


@contextmanager
def _statistics_at_rest(model: nn.Module) -> Iterator[None]:
    """Normalize by the batch as in training, but let running statistics be within a block."""
    layers = [each for each in model.modules() if isinstance(each, _BatchNorm)]
    tracking = [layer.track_running_stats for layer in layers]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer, before in zip(layers, tracking, strict=True):
            layer.track_running_stats = before
