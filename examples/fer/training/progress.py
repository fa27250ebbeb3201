"""The progress within an epoch, which a run that stops in the middle must store."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fer.training.ranks import Ranks


class Diverged(Exception):
    """A loss or a weight is not finite any more."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}. What was kept before is untouched. A lower --lr, --clip 1 or --amp off may "
            "help"
        )


def require_finite_state(tensors: Iterable[Tensor], epoch: int, ranks: Ranks) -> None:
    """Raise unless all tensors of a state are finite, so that no other state is ever stored.

    Checking the loss is not enough, because it belongs to the weights before the last step.
    """
    found = [each.isfinite().all() for each in tensors if each.is_floating_point()]
    if ranks.max_over_ranks(not torch.stack(found).all()):
        raise Diverged(
            f"weights, centers or moments stopped being numbers in epoch {epoch}, though the loss "
            "is one still"
        )


@dataclass
class Progress:
    """The completed steps of an epoch.

    Attributes:
        steps: Their number.
        skipped: Number of steps that the gradient scaler skipped.
        sums: Sums of every loss and of the accuracy over the other steps.
        seconds: Their duration.
        waited: Seconds of the duration spent waiting for batches.
        lr: The learning rate of the first step.
    """

    steps: int = 0
    skipped: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    waited: float = 0.0
    lr: float = 0.0

    def add(self, values: dict[str, Tensor]) -> None:
        """Add a step without waiting for the device; a step without values was skipped."""
        self.steps += 1
        self.skipped += not values
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def require_finite(self, epoch: int, ranks: Ranks) -> None:
        """Raise on every process unless all sums of all processes are finite.

        A value that is not finite in any step stays in the sum.
        """
        # All processes skip the same steps, because their gradients are averaged before.
        if not self.sums:
            return
        if not ranks.max_over_ranks(not torch.stack(list(self.sums.values())).isfinite().all()):
            return
        taken = self.steps - self.skipped
        means = ", ".join(f"{n} {float(v) / taken:.3g}" for n, v in self.sums.items())
        raise Diverged(
            f"the loss stopped being a number in epoch {epoch}, at or before step {self.steps} "
            f"(means so far: {means})"
        )

    def average_over_ranks(self, ranks: Ranks) -> None:
        """Replace the sums by their mean over all processes, so that one process can store them."""
        every = ranks.gather({name: value.cpu() for name, value in self.sums.items()})
        for name, value in self.sums.items():
            mean = torch.stack([rank[name] for rank in every]).mean(0)
            self.sums[name] = mean.to(value.device)

    def means(self, ranks: Ranks, batch_size: int) -> dict[str, float]:
        """Return the means of the epoch over all processes and its speed."""
        if self.steps == self.skipped:
            raise Diverged(f"the gradient scaler skipped all {self.steps} steps of an epoch")
        taken = self.steps - self.skipped
        mine = {name: float(total) / taken for name, total in self.sums.items()}
        every = ranks.gather(mine)
        found = {f"train_{name}": sum(rank[name] for rank in every) / len(every) for name in mine}
        return found | {
            "images_per_second": self.steps * batch_size / self.seconds,
            "waiting": self.waited / self.seconds,
            "seconds": self.seconds,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return plain values and tensors from which to restore this object."""
        return vars(self)
