"""Batch normalization over the joint batch of all processes, on a CPU too.

PyTorch's own runs on accelerators only. This one serves to show, where no GPU is at hand, that
several processes train as one does.
"""

import torch
from torch import Tensor, nn

from fdrl_layers._ranks import sum_over_ranks


class JointBatchNorm2d(nn.BatchNorm2d):
    """Normalize maps (N, C, H, W) by the statistics of every process's batch."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the maps, normalized; in training the running statistics move on."""
        if not self.training:
            return super().forward(input)
        axes = (0, 2, 3)
        # Under autocast too: sums of thousands of numbers, and their count, want float32 at least.
        wide = input.to(torch.promote_types(input.dtype, torch.float32))
        count = wide.new_full((1,), wide.numel() // wide.shape[1])
        sums = sum_over_ranks(torch.cat([wide.sum(axes), count]))
        mean, total = sums[:-1] / sums[-1], sums[-1]
        centered = wide - mean[:, None, None]
        # Twice over the data, as the difference of two large sums would lose digits.
        variance = sum_over_ranks(centered.square().sum(axes)) / total
        self._follow(mean.detach(), (variance * total / (total - 1)).detach())
        scale = self.weight * (variance + self.eps).rsqrt()
        normalized = centered * scale[:, None, None] + self.bias[:, None, None]
        return normalized.to(input.dtype)

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        # Without a momentum, the plain mean over all batches.
        momentum = self.momentum
        if momentum is None:
            momentum = 1 / int(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)


def joined_batch_norm(model: nn.Module, device: torch.device) -> None:
    """Let every batch normalization in `model` see the batch of all processes."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if not isinstance(child, nn.BatchNorm2d):
                continue
            if device.type == "cuda":
                setattr(parent, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
            else:
                child.__class__ = JointBatchNorm2d
