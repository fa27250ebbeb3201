"""The distribution loss alone, equation 5, by hand; what it shares is in `test_every_loss.py`."""

import torch
from hypothesis import given, strategies as st

from comparing import assert_close
from fdrl_layers import DistributionLoss
from fdrl_layers.functional import distribution_loss
from loss_cases import DISTRIBUTION
from strategies import Sizes, seeds, sizes, targets_N

INTRA_W = torch.tensor([[0.0, 1.0], [2.0, 0.0], [5.0, 5.0]])
CENTERS = torch.tensor([[0.0, 0.0], [2.0, 3.0]])


def test_by_hand() -> None:
    # 1 from class 0, 9 from class 1, 9 + 4 from class 1.
    assert_close(
        "loss", distribution_loss(INTRA_W, torch.tensor([0, 1, 1]), CENTERS), 23 / 3, torch.float32
    )
    assert distribution_loss(INTRA_W, torch.tensor([0, -100, 1]), CENTERS).item() == (1 + 13) / 2


def test_soft_targets_by_hand() -> None:
    shares = torch.tensor([[0.75, 0.25], [0.0, 1.0], [1.0, 0.0]])
    expected = (0.75 * 1 + 0.25 * 8 + 9 + 50) / 3
    assert_close("loss", distribution_loss(INTRA_W, shares, CENTERS), expected, torch.float32)


def test_centers_by_hand() -> None:
    loss = DistributionLoss(num_classes=2, num_latents=2)
    loss(INTRA_W, torch.tensor([0, 0, 1]))
    assert loss.centers.value.tolist() == [[1, 0.5], [5, 5]]
    # Class 1 has (1, 1) twice: half of twice (4, 4) over 1 + 2. Class 0 has nothing, and stays.
    loss(torch.ones(3, 2), torch.tensor([1, -100, 1]))
    assert_close("class 1", loss.centers.value[1], torch.full((2,), 5 - 4 / 3))
    assert loss.centers.value[0].tolist() == [1, 0.5]


def test_the_paper_s_number_of_latents_is_the_default() -> None:
    assert DistributionLoss(7).centers.value.shape == (7, 9)


@given(data=st.data(), of=sizes(), seed=seeds(), ignored=st.integers(0, 5))
def test_law_a_class_may_be_the_ignored_one(
    data: st.DataObject, of: Sizes, seed: int, ignored: int
) -> None:
    target = data.draw(targets_N(of))
    inputs, centers = DISTRIBUTION.inputs(of, seed), DISTRIBUTION.drawn_centers(of, seed)
    expected = DISTRIBUTION.expect(inputs, target, centers, ignore_index=ignored)
    found = DISTRIBUTION.apply(inputs, target, centers, ignore_index=ignored)
    assert_close("loss", found, expected)
    loss = DISTRIBUTION.loaded(centers, of, ignore_index=ignored).eval()
    assert_close("module", DISTRIBUTION.run(loss, inputs, target), expected)
