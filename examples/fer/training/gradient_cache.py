"""Train on a batch too large for memory in parts, with the losses of the whole batch.

Accumulating the gradients of parts would average losses that are not averages (the balance loss is
the distance of the batch's mean), and would update the centers once per part. Instead, the parts
pass through the backbone twice, the first time without an autograd graph. Head and losses use all
features at once, and each part then receives the gradient of its features. Only batch normalization
uses the statistics of parts (Gao et al. 2021, "gradient cache").
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fdrl_layers import FDRLOutput
from fer.model.build import compute_losses
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
    with torch.no_grad(), _frozen_running_stats(backbone), precision.autocast(options, device):
        features = torch.cat([backbone(part) for part in parts])
    features.requires_grad_()
    with precision.autocast(options, device):
        output = head(features)
    losses = compute_losses(run.criterion, output, targets)
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
def _frozen_running_stats(model: nn.Module) -> Iterator[None]:
    """Normalize by the batch as in training, but do not update running statistics in a block."""
    layers = [each for each in model.modules() if isinstance(each, _BatchNorm)]
    tracking = [layer.track_running_stats for layer in layers]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer, before in zip(layers, tracking, strict=True):
            layer.track_running_stats = before
