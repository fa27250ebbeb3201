"""The center loss of Wen et al. alone, by hand; what it shares is in `test_every_loss.py`."""

import pytest
import torch

from comparing import assert_close
from fdrl_layers import CenterLoss
from fdrl_layers.functional import center_loss


def test_by_hand() -> None:
    features = torch.tensor([[0.0, 1.0], [2.0, 0.0], [5.0, 5.0], [1.0, 1.0]])
    centers = torch.tensor([[0.0, 0.0], [2.0, 3.0]])
    # 1 from class 0, 9, 13 and 5 from class 1: half of their mean.
    assert center_loss(features, torch.tensor([0, 1, 1, 1]), centers).item() == 28 / 4 / 2


def test_wen_et_al_s_algorithm_by_hand() -> None:
    loss = CenterLoss(num_classes=2, num_features=1, center_rate=0.25)
    found = loss(torch.tensor([[1.0], [3.0], [8.0]]), torch.tensor([0, 0, 1]))
    assert found.item() == pytest.approx(1 / 3)
    # Class 0 meets 6 and 5: (2 - 6 + 2 - 5) / (1 + 2), a quarter of it; class 1 is absent.
    loss(torch.tensor([[6.0], [5.0]]), torch.tensor([0, 0]))
    assert_close("centers", loss.centers.value, torch.tensor([[2 + 7 / 12], [8.0]]))
