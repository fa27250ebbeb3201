"""Batch normalization over the joint batch of all processes, on a CPU as well.

PyTorch's own runs on accelerators only. This one shows without a GPU that several processes train
as one does.
"""

import torch
from torch import Tensor, nn

from fdrl_layers._ranks import sum_over_ranks


class JointBatchNorm2d(nn.BatchNorm2d):
    """Normalize maps (N, C, H, W) by the statistics of the joint batch of all processes."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalized maps; in training, update the running statistics."""
        if not self.training:
            return super().forward(input)
        axes = (0, 2, 3)
        # Sums of thousands of numbers and their count require at least float32, also with autocast.
        wide = input.to(torch.promote_types(input.dtype, torch.float32))
        count = wide.new_full((1,), wide.numel() // wide.shape[1])
        sums = sum_over_ranks(torch.cat([wide.sum(axes), count]))
        mean, total = sums[:-1] / sums[-1], sums[-1]
        centered = wide - mean[:, None, None]
        # Two passes over the data, because the difference of two large sums would lose precision.
        variance = sum_over_ranks(centered.square().sum(axes)) / total
        self._update_running_stats(mean.detach(), (variance * total / (total - 1)).detach())
        scale = self.weight * (variance + self.eps).rsqrt()
        normalized = centered * scale[:, None, None] + self.bias[:, None, None]
        return normalized.to(input.dtype)

    def _update_running_stats(self, mean: Tensor, variance: Tensor) -> None:
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        # Without a momentum, use the plain mean over all batches.
        momentum = self.momentum
        if momentum is None:
            momentum = 1 / int(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)


def use_joint_batch_norm(model: nn.Module, device: torch.device) -> None:
    """Make every batch normalization in `model` use the joint batch of all processes."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if not isinstance(child, nn.BatchNorm2d):
                continue
            if device.type == "cuda":
                setattr(parent, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
            else:
                child.__class__ = JointBatchNorm2d
