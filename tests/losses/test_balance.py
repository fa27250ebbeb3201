"""The balance loss alone, equation 6, by hand; what it shares is in `test_every_loss.py`."""

import pytest
import torch

from fdrl_layers import BalanceLoss
from fdrl_layers.functional import balance_loss
from strategies import normal


def test_by_hand() -> None:
    # The mean is (1, 0, 0.25, 0.75), so 0.75 + 0.25 + 0 + 0.5 from a quarter each.
    intra_weights = torch.tensor([[2.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.0, 1.0]])
    assert balance_loss(intra_weights).item() == 1.5
    assert BalanceLoss()(intra_weights).item() == 1.5


def test_it_is_the_norm_of_the_mean_and_no_mean_of_norms() -> None:
    one_latent_each = torch.eye(4, dtype=torch.float64)
    assert balance_loss(one_latent_each).item() == 0
    assert balance_loss(one_latent_each[:1]).item() == 1.5


@pytest.mark.parametrize("num_latents", [1, 2, 3, 7, 9, 63])
@pytest.mark.parametrize("batch", [1, 2])
def test_uniform_weights_are_exactly_zero(batch: int, num_latents: int) -> None:
    uniform = torch.full((batch, num_latents), 1 / num_latents, dtype=torch.float64)
    assert balance_loss(uniform).item() == 0
    assert balance_loss(uniform.float()).item() == pytest.approx(0, abs=2**-23)


def test_it_has_no_state_and_evaluates_as_it_trains() -> None:
    loss, intra_weights = BalanceLoss(), normal(4, 3, seed=0)
    assert not loss.state_dict()
    assert torch.equal(loss(intra_weights), loss.eval()(intra_weights))
