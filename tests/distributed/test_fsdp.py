"""FSDP2: a head whose parameters are spread over ranks takes the steps of one process."""

from typing import Any

import pytest
import torch
from torch import Tensor, distributed as dist, nn

from comparing import assert_close
from loss_cases import JOINT, model_of
from ranks import SIZE, Ranks, part
from strategies import Sizes, normal

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.timeout(120),
    pytest.mark.skipif(
        tuple(map(int, torch.__version__.split(".")[:2])) < (2, 9),
        reason="before torch 2.9 FSDP2 does not run on a CPU",
    ),
]

OF = Sizes(N=8, P=6, M=3, D=4, K=3)
CUT = [OF.N // SIZE] * SIZE


def shard(*modules: nn.Module) -> None:
    from torch.distributed.fsdp import fully_shard

    mesh = dist.device_mesh.init_device_mesh("cpu", (SIZE,))
    for module in modules:
        fully_shard(module, mesh=mesh)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that is spread over the ranks."""
    gather = getattr(tensor, "full_tensor", tensor.clone)
    found = gather()
    assert isinstance(found, Tensor)
    return found.detach().clone()


def train(rank: int | None) -> list[dict[str, Tensor]]:
    """Three steps of Adam on this rank's half of each batch."""
    model = model_of(OF)
    loss = JOINT.new(OF, lambda_compactness=0.1, lambda_distribution=0.1)
    if rank is not None:
        shard(model[2], model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    steps = []
    for seed in range(3):
        target = part(torch.arange(OF.N) % OF.K, rank, CUT)
        losses = loss(model(part(normal(OF.N, 3, seed=seed), rank, CUT)), target)
        optimizer.zero_grad()
        losses.total.backward()
        found = {"total": losses.total.detach()}
        named = dict(model.named_parameters())
        found |= {f"d {n}": whole(p.grad) for n, p in named.items() if p.grad is not None}
        optimizer.step()
        found |= {name: whole(p) for name, p in named.items()}
        found |= {name: value.double() for name, value in loss.state_dict().items()}
        steps.append(found)
    return steps


def test_a_sharded_training_is_that_of_one_process(ranks: Ranks) -> None:
    expected = train(None)
    for steps in ranks.run(train):
        for number, (found, one) in enumerate(zip(steps, expected, strict=True)):
            assert_close(f"step {number}", found, one)


def shard_a_part(rank: int) -> tuple[str | None, Tensor, Tensor]:
    """Shard a part of a head on its own, which the head then calls; compare with the whole one."""
    model, same = model_of(OF), model_of(OF)
    shard(model.get_submodule("2.decomposition"))
    head: Any = model[2]
    x = normal(OF.N, 3, seed=0)
    return head._reason_to_call_parts(), model(x).logits.detach(), same(x).logits.detach()


def test_a_part_sharded_on_its_own_is_called(ranks: Ranks) -> None:
    for reason, found, want in ranks.run(shard_a_part):
        assert reason is not None
        assert reason.startswith("`decomposition`")
        assert_close("logits", found, want)
