"""The loops that others are measured against compute what the package does."""

import torch

from comparing import assert_close
from fdrl_layers import FDRLHead, FDRLLoss
from loop_head import LoopHead
from loop_loss import LoopLoss
from strategies import Sizes, normal, parameters_for


def test_head_and_loss_by_loops_equal_ours() -> None:
    of = Sizes(N=11, P=6, M=3, D=5, K=4)
    head = FDRLHead(of.P, of.K, latent_dim=of.D, num_latents=of.M, dtype=torch.float64)
    head.load_state_dict(parameters_for(of, 0))
    loop = LoopHead(of.P, of.K, latent_dim=of.D, num_latents=of.M).double()
    loop.load_stacked(head)
    weights = (0.3, 0.7, 0.2)
    names = ("lambda_compactness", "lambda_balance", "lambda_distribution")
    ours = FDRLLoss(
        of.K,
        num_latents=of.M,
        latent_dim=of.D,
        dtype=torch.float64,
        **dict(zip(names, weights, strict=True)),  # type: ignore[arg-type]
    )
    theirs = LoopLoss(of.K, num_latents=of.M, latent_dim=of.D, weights=weights)
    for seed in range(3):
        # The last class is absent from the first batch.
        target = (torch.arange(of.N) + seed) % (of.K - (seed == 0))
        results = []
        for model, loss in ((head, ours), (loop, theirs)):
            x = normal(of.N, of.P, seed=seed).requires_grad_()
            terms = loss(model(x), target)
            model.zero_grad()
            terms.total.backward()
            found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
            gradients = loop.stacked(found) if model is loop else found
            values = {name: value.detach() for name, value in vars(terms).items()}
            assert x.grad is not None
            results.append(values | {"input": x.grad} | gradients)
        assert_close(f"step {seed}", results[1], results[0])
        centers = torch.stack(theirs.latent_centers)
        assert_close("latent centers", centers, ours.compactness.centers.value)
        centers = torch.stack(theirs.class_centers)
        assert_close("class centers", centers, ours.distribution.centers.value)
