"""Centers as the oracle moves them from batch to batch."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import oracles
from loss_cases import SMALL, LossCase, array, shape
from strategies import IGNORE_INDEX, Sizes


class OracleCenters:
    """The centers of a loss as the oracle has them, from the first batch on."""

    def __init__(self, case: LossCase, of: Sizes = SMALL) -> None:
        self.case = case
        self.value = {c.argument: np.zeros(shape(c.axes, of)) for c in case.centers}
        self.seen = {name: np.zeros(len(rows), np.bool_) for name, rows in self.value.items()}

    def start(self, inputs: Mapping[str, Tensor], target: Tensor) -> dict[str, Tensor]:
        """Start what the batch is the first to have; what the loss then holds the batch against."""
        for each in self.case.centers:
            rows = array(inputs[each.follows])
            now = self.value[each.argument], self.seen[each.argument]
            if each.axes == "MD":
                started = oracles.first_centers_latents(rows, *now)
            else:
                started = oracles.first_centers(rows, target.cpu().numpy(), *now)
            self.value[each.argument], self.seen[each.argument] = started
        return {name: torch.from_numpy(rows.copy()) for name, rows in self.value.items()}

    def move(self, inputs: Mapping[str, Tensor], target: Tensor, update: str, rate: float) -> None:
        """Move on after the batch: `rate` is that of the rule, or the SGD's learning rate."""
        for each in self.case.centers:
            rows, now = array(inputs[each.follows]), self.value[each.argument]
            if update == "gradient":
                moved = now - rate * each.weight * _gradient(rows, target, now, each.axes)
            elif each.axes == "MD":
                rules = {"alpha": oracles.alpha_update_latents, "ema": oracles.ema_update_latents}
                moved = rules[update](rows, now, rate)
            else:
                rule = {"alpha": oracles.alpha_update, "ema": oracles.ema_update}[update]
                moved = rule(rows, target.cpu().numpy(), now, rate)
            self.value[each.argument] = moved


def _gradient(
    rows: NDArray[np.float64], target: Tensor, centers: NDArray[np.float64], axes: str
) -> NDArray[np.float64]:
    # Of the mean over i of sum_k p_ik |x_i - c_k|^2: 2 / N sum_i p_ik (c_k - x_i).
    found = np.zeros(centers.shape)
    counts = target.is_floating_point() or axes == "MD"
    count = len(rows) if counts else int((target != IGNORE_INDEX).sum())
    for i, row in enumerate(rows):
        for k in range(len(centers)):
            if axes == "MD":
                found[k] += centers[k] - row[k]
            else:
                share = float(target[i, k]) if target.ndim == 2 else float(target[i] == k)
                found[k] += share * (centers[k] - row)
    return 2 * found / max(count, 1)
