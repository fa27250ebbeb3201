"""Head and losses can be held by a CUDA graph: by hand, and by the compiler."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from comparing import assert_close
from devices import OneDevice
from fdrl_layers import FDRLHead, FDRLLoss
from loss_shared import RULE


class Tail(nn.Module):
    """A backbone of one layer, head and losses."""

    def __init__(self, rule: Any = "alpha") -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU())
        self.head = FDRLHead(32, 7, latent_dim=32, num_latents=3, reduction="mean")
        self.criterion = FDRLLoss(7, latent_dim=32, num_latents=3, center_update=rule)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        total: Tensor = self.criterion(self.head(self.backbone(images)), labels).total
        return total


def batch(device: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(6, 8, generator=generator)
    return images.to(device), torch.tensor([0, 1, -100, 6, 1, 2]).to(device)


@pytest.mark.compile
@RULE
def test_what_the_compiler_mutates_stays_where_it_is(rule: str, fresh_compiler: None) -> None:
    # Inputs of a graph that are mutated and not static make it skip CUDA graphs.
    from torch._dynamo.backends.common import aot_autograd

    found = []

    def look(graph: Any, inputs: Any) -> Callable[..., Any]:
        metadata: Any = torch._guards.TracingContext.get().fw_metadata
        mutated = {i for i, each in enumerate(metadata.input_info) if each.mutates_data}
        found.append((mutated, set(metadata.static_input_indices)))
        run: Callable[..., Any] = graph.forward
        return run

    tail = Tail(rule)
    torch.compile(tail, fullgraph=True, backend=aot_autograd(fw_compiler=look))(*batch("cpu"))
    ((mutated, static),) = found
    # Three buffers of the batch normalization, and values and masks of two kinds of centers.
    assert len(mutated) == 7
    assert mutated <= static


@RULE
def test_no_forward_pass_makes_a_tensor_on_another_device(rule: str) -> None:
    with FakeTensorMode():
        with torch.device("cuda"):
            tail = Tail(rule)
        images = torch.empty(6, 8, device="cuda")
        labels = torch.empty(6, dtype=torch.int64, device="cuda")
        with OneDevice("cuda"):
            for _ in range(2):
                tail(images, labels)


def test_the_mode_refuses_another_device() -> None:
    with FakeTensorMode(), OneDevice("cuda"), pytest.raises(AssertionError, match="on cpu"):
        torch.ones(2, device="cuda") + torch.ones(())


def twins(rule: str) -> tuple[Tail, Tail]:
    torch.manual_seed(0)
    tail = Tail(rule).cuda()
    return tail, copy.deepcopy(tail)


@pytest.mark.cuda
@pytest.mark.compile
@pytest.mark.parametrize("rule", ["alpha", "gradient"])
def test_reduce_overhead_skips_no_graph(rule: str, fresh_compiler: None) -> None:
    from torch._dynamo.utils import counters

    tail, twin = twins(rule)
    compiled = torch.compile(tail, mode="reduce-overhead", fullgraph=True)
    counters.clear()
    for seed in range(5):
        torch.compiler.cudagraph_mark_step_begin()
        found, want = compiled(*batch("cuda", seed)), twin(*batch("cuda", seed))
        assert_close(f"step {seed}", found.detach(), want.detach(), torch.float32)
        found.backward()
        want.backward()
    assert counters["inductor"]["cudagraph_skips"] == 0


@pytest.mark.cuda
@pytest.mark.parametrize("rule", ["alpha", "gradient"])
def test_graphed_callables_are_the_eager_ones(rule: str) -> None:
    tail, twin = twins(rule)
    images, labels = batch("cuda")
    run: Any = torch.cuda.make_graphed_callables(tail, (images, labels))
    tail.load_state_dict(twin.state_dict())
    for seed in range(5):
        found, want = run(*batch("cuda", seed)), twin(*batch("cuda", seed))
        assert_close(f"step {seed}", found.detach(), want.detach(), torch.float32)
        tail.zero_grad()
        twin.zero_grad()
        found.backward()
        want.backward()
        grads, wanted = ({n: p.grad for n, p in m.named_parameters()} for m in (tail, twin))
        assert_close(f"step {seed}", grads, wanted, torch.float32)
