"""torch.func: a gradient for each sample, and several heads at once."""

import copy
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad, stack_module_state, vmap

from comparing import assert_close
from fdrl_layers import FDRLHead, FDRLOutput
from fdrl_layers.functional import fdrl_loss
from strategies import Sizes, normal, parameters_for

OF = Sizes(N=4, P=5, M=3, D=6, K=2)
CENTERS = normal(OF.M, OF.D, seed=8), normal(OF.K, OF.M, seed=9)
FIELDS = ("logits", "embedding", "latents", "intra_weights", "inter_weights")


def head(seed: int = 0) -> FDRLHead:
    # The shares of some samples lie above 1 / M, and those of others below it.
    model = FDRLHead(
        OF.P,
        OF.K,
        latent_dim=OF.D,
        num_latents=OF.M,
        reduction="share",
        dtype=torch.float64,
    )
    model.load_state_dict(parameters_for(OF, seed))
    return model


def total(model: FDRLHead, state: Any, x: Tensor, target: Tensor, balance: float) -> Tensor:
    """The joint loss of a batch, or of one sample as a batch of one."""
    output = functional_call(model, state, (x.reshape(-1, OF.P),))
    losses = fdrl_loss(
        output,
        target.reshape(-1),
        *CENTERS,
        lambda_compactness=0.3,
        lambda_balance=balance,
        lambda_distribution=0.2,
    )
    return losses.total


def gradients_of_samples(balance: float) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A gradient for each sample, and the gradient of the batch."""
    model = head()
    state = {name: p.detach() for name, p in model.named_parameters()}
    x, target = normal(OF.N, OF.P, seed=1, scale=30.0), torch.tensor([0, 1, 1, 0])

    def loss(state: Any, x: Tensor, target: Tensor) -> Tensor:
        return total(model, state, x, target, balance)

    return vmap(grad(loss), (None, 0, 0))(state, x, target), grad(loss)(state, x, target)


def test_gradients_of_samples_average_to_that_of_the_batch() -> None:
    each, joint = gradients_of_samples(balance=0.0)
    assert_close("gradient", {name: g.mean(0) for name, g in each.items()}, joint)


def test_the_balance_loss_is_no_mean_over_samples() -> None:
    each, joint = gradients_of_samples(balance=1.0)
    intra = "reconstruction.intra.weight"
    assert not torch.allclose(each[intra].mean(0), joint[intra])


def test_an_ensemble_is_its_members() -> None:
    members = [head(seed) for seed in range(3)]
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
