"""What is followed of the relation weights over training, against loops."""

import math

import pytest
import torch
from torch import nn

from fdrl_layers import FDRLHead
from fer.evaluation.relations import measure_relations


@pytest.mark.parametrize("bias", [True, False])
def test_the_numbers_are_those_of_a_loop_and_what_saturates_is_told(bias: bool) -> None:
    torch.manual_seed(0)
    m, d, n = 3, 5, 4
    head = FDRLHead(6, 2, latent_dim=d, num_latents=m, bias=bias, reduction="mean")
    basic = torch.randn(n, 6)
    output = head.requires_grad_(False)(basic)
    inter = head.reconstruction.inter
    assert inter is not None
    distances = []
    for i in range(n):
        aware = output.intra_weights[i, :, None] * output.latents[i]
        biases = [0] * m if inter.bias is None else inter.bias
        messages = [(inter.weight[j] @ aware[j] + biases[j]).relu() for j in range(m)]
        for j in range(m):
            distances += [(messages[j] - messages[k]).norm().item() for k in range(m) if k != j]
    found = measure_relations(head, basic)
    assert found["distance"] == pytest.approx(sum(distances) / len(distances), rel=1e-5)
    inter_weight = sum(map(math.tanh, distances)) / len(distances)
    assert found["inter_weight"] == pytest.approx(inter_weight, rel=1e-5)
    assert found["intra_weight"] == pytest.approx(output.intra_weights.mean().item())
    spreads = [output.intra_weights[:, j].std(correction=0) for j in range(m)]
    assert found["intra_spread"] == pytest.approx(float(sum(spreads)) / m, rel=1e-5)
    assert found["saturated"] == 0
    head = FDRLHead(6, 2, latent_dim=64, num_latents=2, reduction="sum")
    with torch.no_grad():
        head.decomposition.weight.mul_(100)
    assert measure_relations(head, torch.randn(4, 6))["saturated"] == 1


def test_parts_that_are_left_out_have_no_numbers() -> None:
    basic = torch.randn(4, 6)
    assert measure_relations(FDRLHead(6, 2, intra=False, inter=False), basic) == {}
    assert measure_relations(FDRLHead(6, 2, inter=False), basic).keys() == {
        "intra_weight",
        "intra_spread",
    }
    assert "distance" not in measure_relations(FDRLHead(6, 2, num_latents=1), basic)
    assert measure_relations(nn.Linear(6, 2), basic) == {}
