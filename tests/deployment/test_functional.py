"""torch.func: a gradient for each sample, and several heads at once."""

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, stack_module_state, vmap

from comparing import assert_close
from fdrl_layers import FDRLHead, FDRLOutput
from fdrl_layers.functional import fdrl_loss
from loss_shared import head_of
from strategies import Sizes, normal

OF = Sizes(N=4, P=5, M=3, D=6, K=2)
CENTERS = normal(OF.M, OF.D, seed=8), normal(OF.K, OF.M, seed=9)
FIELDS = ("logits", "embedding", "latents", "intra_weights", "inter_weights")


def total(model: FDRLHead, state: Any, x: Tensor, target: Tensor, balance: float) -> Tensor:
    """The joint loss of a batch, or of one sample as a batch of one."""
    output = functional_call(model, state, (x.reshape(-1, OF.P),))
    weights: dict[str, Any] = {
        "lambda_compactness": 0.3,
        "lambda_balance": balance,
        "lambda_distribution": 0.2,
    }
    return fdrl_loss(output, target.reshape(-1), *CENTERS, **weights).total


@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_gradients_of_samples_average_to_that_of_the_batch_but_for_the_balance_loss(
    balance: float,
) -> None:
    model = head_of(OF, reduction="share")
    state = {name: p.detach() for name, p in model.named_parameters()}
    # The shares of some samples lie above 1 / M, and those of others below it.
    x, target = normal(OF.N, OF.P, seed=1, scale=30.0), torch.tensor([0, 1, 1, 0])
    loss = partial(total, model, balance=balance)
    each = vmap(grad(loss), (None, 0, 0))(state, x, target)
    mean, joint = {name: g.mean(0) for name, g in each.items()}, grad(loss)(state, x, target)
    if balance:
        intra = "reconstruction.intra.weight"
        assert not torch.allclose(mean[intra], joint[intra])
    else:
        assert_close("gradient", mean, joint)


def test_an_ensemble_is_its_members() -> None:
    members = [head_of(OF, seed, reduction="share") for seed in range(3)]
    state, buffers = stack_module_state(members)
    skeleton = copy.deepcopy(members[0]).to("meta")
    x = normal(OF.N, OF.P, seed=1)

    def one(state: Any, buffers: Any) -> FDRLOutput:
        output = functional_call(skeleton, (state, buffers), (x,))
        assert isinstance(output, FDRLOutput)
        return output

    together = vmap(one)(state, buffers)
    assert isinstance(together, FDRLOutput)
    for i, member in enumerate(members):
        for name in FIELDS:
            assert_close(name, getattr(together, name)[i], getattr(member(x), name))
