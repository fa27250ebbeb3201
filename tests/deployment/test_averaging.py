"""Averages of weights over time (EMA): the model is averaged, the loss is not."""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from comparing import assert_close
from fdrl_layers import FDRLHead, FDRLLoss, FDRLOutput
from strategies import normal

DECAY = 0.75


def test_the_average_is_that_of_the_parameters_and_buffers() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        norm, head = nn.BatchNorm1d(5), FDRLHead(5, 2, latent_dim=6, num_latents=3)
    model, loss = nn.Sequential(norm, head), FDRLLoss(2, num_latents=3, latent_dim=6)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY), use_buffers=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    expected: dict[str, torch.Tensor] = {}
    for seed in range(4):
        losses = loss(model(normal(8, 5, seed=seed, dtype=torch.float32)), torch.arange(8) % 2)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        average.update_parameters(model)
        state = {n: v.clone() for n, v in model.state_dict().items() if v.is_floating_point()}
        expected = {n: expected.get(n, v).lerp(v, 1 - DECAY) for n, v in state.items()}
    found = average.module.state_dict()
    assert_close("average", {name: found[name] for name in expected}, expected)
    average.eval()
    x = normal(8, 5, seed=9, dtype=torch.float32)
    output = average(x)
    assert isinstance(output, FDRLOutput)
    assert not torch.allclose(output.logits, model.eval()(x).logits)
