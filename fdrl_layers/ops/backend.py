"""Selection of the form of an operator that runs, and the reason why another does not."""

import functools
import importlib.util
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.autograd import forward_ad

from fdrl_layers._checks import check_choice
from fdrl_layers._precision import under_autocast

Backend = Literal["auto", "torch", "triton"]
# Evaluated here and not where it is used: the compiler of torch 2.6 cannot inspect a type.
_BACKENDS = get_args(Backend)

INSTALLED = importlib.util.find_spec("triton") is not None
INTERPRETING = os.environ.get("TRITON_INTERPRET", "0") == "1"
"""Whether Triton's interpreter runs the kernels, slowly but on any device; Triton reads it once."""

_LOGGER = logging.getLogger("fdrl_layers")
_AS_IT_IS = nullcontext()
_PROXY = torch._C._TorchDispatchModeKey.PROXY
_preferred: Backend = "auto"


class BackendChoice(NamedTuple):
    """The backend that runs, and why no faster one does.

    Attributes:
        name: "torch" or "triton".
        reason: Why Triton does not run; empty if it does, or if "torch" was requested.
    """

    name: Literal["torch", "triton"]
    reason: str


def check_backend(backend: str) -> None:
    """Raise unless `backend` is "auto", "torch" or "triton"."""
    check_choice("backend", backend, _BACKENDS)


@contextmanager
def use_backend(backend: Backend) -> Iterator[None]:
    """Select the backend, within the context, of all heads and losses whose `backend` is "auto".

    Args:
        backend: "torch", PyTorch's own kernels; "triton", fused kernels on CUDA, which raises an
            error if they cannot run; or "auto", Triton if it can run.

    Raises:
        ValueError: If `backend` is none of these.

    Note:
        Like PyTorch's own switches of this kind, it applies to all threads.

    Example:
        >>> import torch
        >>> from fdrl_layers import FDRLHead, use_backend
        >>> head, features = FDRLHead(512, 7), torch.randn(4, 512)
        >>> with use_backend("torch"):
        ...     output = head(features)
    """
    global _preferred
    check_backend(backend)
    before, _preferred = _preferred, backend
    try:
        yield
    finally:
        _preferred = before


def choose(name: str, backend: Backend, obstacle: str | None) -> BackendChoice:
    """Choose the backend of operator `name`; `obstacle` is why Triton cannot run it, or None."""
    wanted = _preferred if backend == "auto" else backend
    if wanted == "torch":
        return BackendChoice("torch", "")
    if obstacle is None and INTERPRETING and wanted == "auto":
        obstacle = "TRITON_INTERPRET is set, and the interpreter wants to be asked for"
    if obstacle is None:
        return BackendChoice("triton", "")
    if wanted == "triton":
        raise RuntimeError(f'backend "triton" cannot run {name}: {obstacle}')
    return BackendChoice("torch", obstacle)


@functools.cache
def log_once(name: str, choice: BackendChoice) -> None:
    """Log a choice, the first time that it is made."""
    because = f": Triton cannot run it, as {choice.reason}" if choice.reason else ""
    _LOGGER.info("%s runs on %s%s", name, choice.name, because)


def obstacle_to_triton(tensors: Sequence[Tensor], num_latents: int, latent_dim: int) -> str | None:
    """Return why Triton cannot run kernels for these tensors and sizes; None if it can."""
    first = tensors[0]
    if first.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"its kernels know float32, bfloat16 and float16, not {first.dtype}"
    if num_latents > 16:
        return f"its kernels hold at most 16 latents, not {num_latents}"
    if latent_dim not in (32, 64, 128, 256):
        return f"its kernels know a latent width of 32, 64, 128 or 256, not {latent_dim}"
    if transformed():
        return "its kernels cannot be seen through by torch.func, forward-mode derivatives or jit"
    return _obstacle_on(first.device)


def _obstacle_on(device: torch.device) -> str | None:
    if not INSTALLED:
        return "Triton is not installed"
    if INTERPRETING:
        return None
    if device.type != "cuda":
        return f"it needs a CUDA device, and the input is on {device.type}"
    if torch.version.hip is not None:
        return "its kernels are made for NVIDIA devices only"
    properties = torch.cuda.get_device_properties(device)
    if properties.major < 8:
        found = f"{properties.major}.{properties.minor}"
        return f"it needs compute capability 8.0, and {device} has {found}"
    return None


def transformed() -> bool:
    """Return whether torch.func, forward-mode derivatives or a tracer must see each operator."""
    return (
        torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._get_tracing_state() is not None
        # The compiler of torch 2.6 cannot trace this call, and is not such a tracer.
        or (not torch.compiler.is_compiling() and torch._C._get_dispatch_mode(_PROXY) is not None)
    )


def plain(tensors: Sequence[Tensor | None]) -> bool:
    """Return whether hand-written passes may run: no tracing, and no tensor subclasses."""
    if torch.compiler.is_compiling() or transformed():
        return False
    for each in tensors:
        kind = type(each)
        if each is not None and kind is not Tensor and kind is not torch.nn.Parameter:
            return False
    return True


def working_dtype(input: Tensor) -> torch.dtype:
    """Return the type in which products are computed: autocast's if it is on."""
    device = input.device.type
    if not under_autocast(device):
        return input.dtype
    return input.dtype if input.dtype == torch.float64 else torch.get_autocast_dtype(device)


def without_autocast(device_type: str) -> AbstractContextManager[object]:
    """Return a context in which autocast does not change the types of operators' inputs."""
    if under_autocast(device_type):
        return torch.autocast(device_type, enabled=False)
    return _AS_IT_IS
