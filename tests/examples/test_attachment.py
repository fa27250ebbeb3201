"""A head on maps: where it must equal the paper's, and against a loop."""

import dataclasses

import pytest
import torch
from torch import Tensor

from comparing import assert_close
from fdrl_layers import FDRLHead, FDRLOutput
from fer.model.attachment import MapHead

N, P, T, M, D, K = 3, 5, 4, 2, 6, 7


def head_of(*, bias: bool = True) -> FDRLHead:
    torch.manual_seed(0)
    return FDRLHead(P, K, latent_dim=D, num_latents=M, reduction="mean", bias=bias).double()


def named(output: FDRLOutput) -> dict[str, Tensor]:
    return {each.name: getattr(output, each.name) for each in dataclasses.fields(output)}


@pytest.mark.parametrize("bias", [True, False])
def test_attention_that_knows_nothing_is_the_papers_pooling(bias: bool) -> None:
    head = head_of(bias=bias)
    maps = torch.randn(N, P, T, dtype=torch.float64)
    on_maps = MapHead(head, use_attention=True).double()
    assert_close("output", named(on_maps(maps.flatten(1))), named(head(maps.mean(2))))


@pytest.mark.parametrize("use_attention", [True, False])
def test_the_latents_are_those_of_a_loop_and_of_one_place_the_papers(use_attention: bool) -> None:
    head, maps = head_of(), torch.randn(N, P, T, dtype=torch.float64)
    on_maps = MapHead(head, use_attention=use_attention).double().requires_grad_(False)
    if on_maps.queries is not None:
        torch.nn.init.normal_(on_maps.queries)
    weight, bias = head.decomposition.weight, head.decomposition.bias
    assert bias is not None
    wanted = torch.zeros(N, M, D, dtype=torch.float64)
    for i in range(N):
        for j in range(M):
            places = [maps[i, :, t] for t in range(T)]
            if on_maps.queries is not None:
                scores = []
                for x in places:
                    normal = (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt()
                    scores.append((on_maps.queries[j] @ normal).exp())
                share = [score / sum(scores) for score in scores]
                x = torch.stack([a * x for a, x in zip(share, places, strict=True)]).sum(0)
                wanted[i, j] = (weight[j] @ x + bias[j]).relu()
            else:
                each = [(weight[j] @ x + bias[j]).relu() for x in places]
                wanted[i, j] = torch.stack(each).amax(0)
    got = on_maps(maps.flatten(1)).latents
    assert_close("latents", {"latents": got}, {"latents": wanted})
    assert_close("output", named(on_maps(maps[..., 0])), named(head(maps[..., 0])))


def test_queries_learn_from_zero() -> None:
    on_maps = MapHead(head_of(), use_attention=True).double()
    on_maps(torch.randn(N, P * T, dtype=torch.float64)).logits.square().sum().backward()
    assert on_maps.queries is not None
    assert on_maps.queries.grad is not None
    assert on_maps.queries.grad.abs().min() > 0
