"""The compactness loss alone, equation 2, by hand; what it shares is in `test_every_loss.py`."""

import torch

from fdrl_layers import CompactnessLoss
from fdrl_layers.functional import compactness_loss

CENTERS = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
LATENTS = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[3.0, 0.0], [0.0, 0.0]]])


def test_by_hand() -> None:
    # Sample 1: 1 and 4. Sample 2: 4 + 1 and 0. The mean over the two of the sum over the latents.
    assert compactness_loss(LATENTS, CENTERS).item() == (1 + 4 + 5 + 0) / 2


def test_one_center_per_latent_for_every_sample() -> None:
    loss = CompactnessLoss(latent_dim=2, num_latents=2)
    assert loss(LATENTS).item() == 1 + 1  # each latent is 1 from its center
    assert loss.centers.value.tolist() == [[2, 0], [0, 1]]
    # n is N = 1 for both: the first moves by 0.5 x 4 / (1 + 1), the second not at all.
    loss(torch.tensor([[[6.0, 0.0], [0.0, 1.0]]]))
    assert loss.centers.value.tolist() == [[3, 0], [0, 1]]


def test_the_paper_s_widths_are_the_default() -> None:
    assert CompactnessLoss().centers.value.shape == (9, 128)
