"""Dry runs of a backbone on blank images, without side effects."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fdrl_layers._checks import check_size

ImageSize = int | tuple[int, int]


@contextlib.contextmanager
def without_trace(module: nn.Module) -> Iterator[None]:
    """Set a module to evaluation mode; restore modes, buffers and random states afterwards."""
    parts = list(module.modules())
    # Set directly on each part, as some models override train() to keep parts frozen.
    modes = [part.training for part in parts]
    buffers = [dict(part._buffers) for part in parts]
    kept = [
        (buffer, _version(buffer), buffer.clone())
        for of_part in buffers
        for buffer in of_part.values()
        if buffer is not None
    ]
    for part in parts:
        part.training = False
    try:
        with _forked_random_states(module):
            yield
    finally:
        for part, mode, of_part in zip(parts, modes, buffers, strict=True):
            part.training = mode
            part._buffers.clear()
            part._buffers.update(of_part)
        for buffer, version, before in kept:
            # An unchanged buffer must not be written to: a pending backward pass may need it.
            if _version(buffer) != version:
                with torch.no_grad():
                    buffer.copy_(before)


def _version(buffer: Tensor) -> int:
    # Inference tensors have no version counter, and cannot change outside inference mode.
    return 0 if buffer.is_inference() else buffer._version


def _forked_random_states(module: nn.Module) -> contextlib.AbstractContextManager[None]:
    devices = {tensor.device for tensor in _tensors(module)}
    other = {device.type for device in devices} - {"cpu", "meta"}
    if not other:
        return torch.random.fork_rng(devices=[])
    kind = min(other)
    indices = [device.index or 0 for device in devices if device.type == kind]
    return torch.random.fork_rng(devices=sorted(indices), device_type=kind)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def like(module: nn.Module) -> dict[str, Any]:
    """Return the device and floating-point type of a module, as keyword arguments."""
    for tensor in _tensors(module):
        if tensor.is_floating_point():
            return {"device": tensor.device, "dtype": tensor.dtype}
    return {"device": None, "dtype": None}


def blank_images(
    backbone: nn.Module, image_size: ImageSize | None = None, in_channels: int | None = None
) -> Tensor:
    """Return two blank images of the given size, or of the size that the backbone declares."""
    size = _expected_size(backbone) if image_size is None else image_size
    sides = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(sides) != 2:
        raise ValueError(f"`image_size` must be one size or (height, width), got {image_size}")
    for side in sides:
        check_size("image_size", side)
    channels = _expected_channels(backbone) if in_channels is None else in_channels
    check_size("in_channels", channels)
    return torch.zeros(2, channels, *sides, **like(backbone))


def run_blank(backbone: nn.Module, images: Tensor) -> Any:
    """Return a backbone's output for two blank images, without side effects.

    Raises:
        ValueError: If the backbone raises an error, or has lazy parameters without a shape.
    """
    if any(is_lazy(parameter) for parameter in backbone.parameters()):
        raise ValueError("`backbone` has lazy parameters without a shape: run it once before")
    try:
        with without_trace(backbone), torch.no_grad():
            return backbone(images)
    except Exception as error:
        raise ValueError(
            f"`backbone` failed in a dry run on images of {tuple(images.shape)}: "
            f"{type(error).__name__}: {error}. Give `image_size` or `in_channels`, or give "
            "`in_features` and `classifier`, and it is not run"
        ) from error


def _expected_channels(backbone: nn.Module) -> int:
    for part in backbone.modules():
        if isinstance(part, nn.Conv2d):
            return part.in_channels
    raise ValueError(
        "`in_channels` must be given for a backbone without a Conv2d, from which it is read"
    )


def _expected_size(backbone: nn.Module) -> ImageSize:
    """Return the size that timm, torchvision and transformers store in the model, or 224."""
    settings = getattr(backbone, "default_cfg", None) or {}
    found = (
        getattr(getattr(backbone, "patch_embed", None), "img_size", None),
        tuple(settings.get("input_size", ()))[-2:],
        getattr(backbone, "image_size", None),
        getattr(getattr(backbone, "config", None), "image_size", None),
    )
    for size in found:
        if isinstance(size, int):
            return size
        if isinstance(size, (tuple, list)) and len(size) == 2:
            return (int(size[0]), int(size[1]))
    return 224
