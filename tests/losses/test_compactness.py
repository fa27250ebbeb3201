"""The compactness loss alone, equation 2, by hand; what it shares is in `test_every_loss.py`."""

import torch
from hypothesis import given

from comparing import assert_close
from fdrl_layers import CompactnessLoss
from fdrl_layers.functional import compactness_loss
from loss_cases import COMPACTNESS
from strategies import Sizes, latents_NMD, seeds, sizes

LATENTS = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[3.0, 0.0], [0.0, 0.0]]])


def test_by_hand() -> None:
    centers = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    # Sample 1: 1 and 4. Sample 2: 4 + 1 and 0. The mean over the two of the sum over the latents.
    assert compactness_loss(LATENTS, centers).item() == (1 + 4 + 5 + 0) / 2


def test_one_center_per_latent_for_every_sample() -> None:
    loss = CompactnessLoss(latent_dim=2, num_latents=2)
    assert loss(LATENTS).item() == 1 + 1  # each latent is 1 from its center
    assert loss.centers.value.tolist() == [[2, 0], [0, 1]]
    # n is N = 1 for both: the first moves by 0.5 x 4 / (1 + 1), the second not at all.
    loss(torch.tensor([[[6.0, 0.0], [0.0, 1.0]]]))
    assert loss.centers.value.tolist() == [[3, 0], [0, 1]]


def test_the_paper_s_widths_are_the_default() -> None:
    assert CompactnessLoss().centers.value.shape == (9, 128)


@given(latents=latents_NMD(), seed=seeds())
def test_law_no_center_is_better_than_the_mean(latents: torch.Tensor, seed: int) -> None:
    samples, num_latents, width = latents.shape
    if samples == 0:
        return
    of = Sizes(N=samples, P=1, M=num_latents, D=width, K=1)
    other = COMPACTNESS.drawn_centers(of, seed)["centers"]
    best = compactness_loss(latents, latents.mean(0))
    offset = (other - latents.mean(0)).square().sum()
    assert_close("loss", compactness_loss(latents, other), best + offset)


@given(of=sizes(min_batch=1), seed=seeds())
def test_law_a_loss_is_the_mean_of_its_samples(of: Sizes, seed: int) -> None:
    latents, centers = COMPACTNESS.inputs(of, seed)["latents"], COMPACTNESS.drawn_centers(of, seed)
    each = torch.stack([compactness_loss(row[None], **centers) for row in latents])
    assert_close("loss", compactness_loss(latents, **centers), each.mean())


def test_a_sample_s_gradient_is_twice_its_distance_over_the_batch() -> None:
    latents, centers = LATENTS.clone().requires_grad_(), torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    compactness_loss(latents, centers).backward()
    assert latents.grad is not None
    assert torch.equal(latents.grad, 2 * (LATENTS - centers) / 2)
