"""Memory that passes by hand keep on a CPU: no result lies in it, and nothing stale is read."""

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from fdrl_layers import FDRLHead, FeatureReconstruction
from fdrl_layers.ops.eager import scratch as memory
from fdrl_layers.ops.eager.scratch import scratch

N, P, D, M = 5, 6, 8, 3


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_KEPT", memory._Kept())


def module_of(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "head":
        return FDRLHead(P, 4, latent_dim=D, num_latents=M)
    return FeatureReconstruction(D, M)


def step(module: nn.Module, batch: int = N) -> list[Tensor]:
    """All outputs and gradients of a step."""
    torch.manual_seed(1)
    shape = (P,) if isinstance(module, FDRLHead) else (M, D)
    input = torch.randn(batch, *shape, requires_grad=True)
    outputs = list(module(input))
    leaves = [input, *module.parameters()]
    return outputs + list(torch.autograd.grad(sum(each.sum() for each in outputs), leaves))


def poison() -> None:
    for buffer in memory._KEPT.buffers.values():
        buffer.fill_(float("nan"))


@pytest.mark.parametrize("kind", ["head", "reconstruction"])
def test_nothing_stale_is_read_and_no_result_lies_there(kind: str) -> None:
    module = module_of(kind)
    first = step(module)
    (buffer,) = memory._KEPT.buffers.values()
    kept = [each.detach().clone() for each in first]
    poison()
    assert all(torch.equal(a, b) for a, b in zip(first, kept, strict=True))
    assert all(each.untyped_storage() is not buffer.untyped_storage() for each in first)
    again = step(module)
    assert all(torch.equal(a, b) for a, b in zip(again, kept, strict=True))
    assert next(iter(memory._KEPT.buffers.values())) is buffer


def test_backward_may_wait_while_others_run() -> None:
    module = module_of("head")
    input = torch.randn(N, P, requires_grad=True)
    want = torch.autograd.grad(module(input).embedding.sum(), input)
    output = module(input)
    step(module, batch=2 * N)
    poison()
    assert torch.equal(torch.autograd.grad(output.embedding.sum(), input)[0], want[0])


def test_inference_mode_first() -> None:
    module = module_of("head")
    with torch.inference_mode():
        module(torch.randn(N, P))
        module(torch.randn(2 * N, P))
    assert all(each.isfinite().all() for each in step(module))


def test_a_mode_or_a_default_device_leaves_nothing_behind() -> None:
    module, input = module_of("head").eval(), torch.randn(N, P)
    with FakeTensorMode(allow_non_fake_inputs=True):
        module(input)
    want = module(input).embedding
    assert torch.isfinite(want).all()
    memory._KEPT.buffers.clear()
    memory._KEPT.tensors.clear()
    with torch.device("meta"):
        assert torch.equal(module(input).embedding, want)


class CallsAnother(TorchDispatchMode):
    """Runs another batch through a head, in the middle of the first one's pass."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.module = module

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "cdist" in str(func):
            self.module(torch.randn(N, P))
        return func(*args, **(kwargs or {}))


def test_a_pass_within_a_pass() -> None:
    module, input = module_of("head"), torch.randn(N, P)
    want = module(input).embedding
    with CallsAnother(module):
        assert torch.equal(module(input).embedding, want)


def test_a_thread_has_memory_of_its_own() -> None:
    mine = scratch(torch.empty(0), (4, 4))
    theirs: list[Tensor] = []
    thread = threading.Thread(target=lambda: theirs.extend(scratch(torch.empty(0), (4, 4))))
    thread.start()
    thread.join()
    assert mine[0].data_ptr() != theirs[0].data_ptr()
    assert scratch(torch.empty(0), (4, 4))[0] is mine[0]


def test_memory_is_aligned_apart_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LIMIT", 4096)
    a, b = scratch(torch.empty(0, dtype=torch.bfloat16), (3, 5), (2, 2))
    assert scratch(torch.empty(0, device="meta"), (3, 5), (2, 2))[0].device.type == "meta"
    assert a.dtype == b.dtype == torch.float32
    assert a.data_ptr() % 64 == b.data_ptr() % 64 == 0
    a.fill_(1), b.fill_(2)
    assert a.eq(1).all()
    for width in range(1, 100):
        scratch(torch.empty(0), (width, 10))
        assert len(memory._KEPT.tensors) <= memory.MOST_SHAPES
    (large,) = scratch(torch.empty(0), (2000,))
    assert scratch(torch.empty(0), (2000,))[0] is not large
    assert memory._KEPT.buffers[torch.float32].numel() * 4 <= 4096
