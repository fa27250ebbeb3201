import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import grad

from fdrl_layers import BackendChoice, FDRLHead, FDRLLoss, use_backend
from fdrl_layers.ops import backend
from fdrl_layers.ops.backend import obstacle_to_triton


@pytest.fixture(autouse=True)
def _no_interpreter(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(backend, "INTERPRETING", False)
    monkeypatch.setattr(backend, "INSTALLED", True)
    backend.log_once.cache_clear()
    yield
    backend.log_once.cache_clear()


def features(dtype: torch.dtype | None = None) -> torch.Tensor:
    return torch.ones(2, 5, dtype=dtype)


def head(**options: Any) -> FDRLHead:
    return FDRLHead(5, 2, **({"latent_dim": 32, "num_latents": 3} | options))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "it needs a CUDA device, and the input is on cpu"),
        ({"num_latents": 17}, "its kernels hold at most 16 latents, not 17"),
        ({"latent_dim": 48}, "a latent width of 32, 64, 128 or 256, not 48"),
        ({"dtype": torch.float64}, "float32, bfloat16 and float16, not torch.float64"),
        ({"intra": False}, "both relations, and the head leaves one out"),
        ({"inter": False}, "both relations, and the head leaves one out"),
        ({"self_feature": "message"}, 'know equation 11 as printed, not self_feature="message"'),
    ],
)
def test_says_why_triton_does_not_run(options: dict[str, Any], reason: str) -> None:
    x = features(options.get("dtype"))
    choice = head(**options).backend_choice(x)
    assert choice.name == "torch"
    assert choice.reason.endswith(reason)
    with pytest.raises(RuntimeError, match=f'"triton" cannot run FDRLHead: .*{reason}'):
        head(backend="triton", **options)(x)


def test_says_that_triton_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "INSTALLED", False)
    assert head().backend_choice(features()).reason == "Triton is not installed"


# Torch's own, the first time that forward-mode derivatives are used.
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
def test_transforms_keep_triton_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "INTERPRETING", True)
    x, reasons = features(), []

    def ask(x: torch.Tensor) -> torch.Tensor:
        reasons.append(obstacle_to_triton([x], 3, 32))
        return x.sum()

    ask(x)
    grad(ask)(x)
    with forward_ad.dual_level():
        ask(forward_ad.make_dual(x, x))
    assert reasons[0] is None
    assert all(reason and "torch.func" in reason for reason in reasons[1:])


@pytest.mark.parametrize("major", [7, 8, 9])
def test_wants_a_device_that_is_new_enough(monkeypatch: pytest.MonkeyPatch, major: int) -> None:
    properties = SimpleNamespace(major=major, minor=5)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    reason = "it needs compute capability 8.0, and cuda:0 has 7.5" if major < 8 else None
    assert backend._obstacle_on(torch.device("cuda", 0)) == reason


def test_the_context_speaks_for_those_that_do_not_until_it_ends() -> None:
    x = features()
    with use_backend("torch"):
        assert head().backend_choice(x) == BackendChoice("torch", "")
        with pytest.raises(RuntimeError, match="cannot run FDRLHead"):
            head(backend="triton")(x)
    with use_backend("triton"):
        with pytest.raises(RuntimeError, match="cannot run FDRLHead"):
            head()(x)
        assert head(backend="torch").backend_choice(x) == BackendChoice("torch", "")
        with use_backend("auto"):
            assert head().backend_choice(x).reason
        with pytest.raises(RuntimeError, match="cannot run FDRLHead"):
            head()(x)
    with pytest.raises(ZeroDivisionError), use_backend("triton"):
        raise ZeroDivisionError
    assert head().backend_choice(x).reason


def test_the_loss_says_so_too() -> None:
    criterion = FDRLLoss(2, num_latents=3, latent_dim=32, backend="triton")
    output = head()(features())
    with pytest.raises(RuntimeError, match='"triton" cannot run FDRLLoss: it needs a CUDA device'):
        criterion(output, torch.tensor([0, 1]))
    assert not any(value.any() for value in criterion.buffers())


def test_a_reason_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="fdrl_layers"):
        for _ in range(3):
            head()(features())
        head(num_latents=17)(features())
    told = "FDRLHead runs on torch: Triton cannot run it, as "
    assert [record.getMessage() for record in caplog.records] == [
        f"{told}it needs a CUDA device, and the input is on cpu",
        f"{told}its kernels hold at most 16 latents, not 17",
    ]


@pytest.mark.parametrize("build", [head, lambda **o: FDRLLoss(2, **o)])
def test_rejects_unknown_backends(build: Any) -> None:
    with pytest.raises(ValueError, match="`backend` must be one of 'auto', 'torch', 'triton', got"):
        build(backend="cuda")
    with pytest.raises(ValueError, match="`backend` must be one of"), use_backend("cuda"):  # type: ignore[arg-type]
        pass


def test_shows_what_is_no_default() -> None:
    assert "backend" not in repr(head())
    assert "backend='torch', recompute=True" in repr(head(backend="torch", recompute=True))
    assert "backend='torch'" in repr(FDRLLoss(2, backend="torch"))
