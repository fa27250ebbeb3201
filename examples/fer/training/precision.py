"""Select the dtype of the matrix products of a training."""

from contextlib import AbstractContextManager

import torch

from fer.options import Options


def autocast_dtype(options: Options, device: torch.device) -> torch.dtype:
    """Return the type to which autocast casts products; float32 if it is disabled."""
    if options.amp == "bf16":
        return torch.bfloat16
    if options.amp == "fp16":
        if device.type != "cuda":
            raise ValueError("--amp fp16 needs a GPU; bf16 works on a CPU too")
        return torch.float16
    if options.amp == "off" or device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def autocast(
    options: Options, device: torch.device, *, cache: bool = True
) -> AbstractContextManager[object]:
    """Return autocast to that type; without `cache` weights are cast each time they are used."""
    dtype = autocast_dtype(options, device)
    lowered = dtype is not torch.float32
    return torch.autocast(
        device.type, dtype if lowered else None, enabled=lowered, cache_enabled=cache
    )


def make_gradient_scaler(options: Options, device: torch.device) -> torch.amp.GradScaler:
    """Return a gradient scaler, which prevents underflow in float16 and is disabled otherwise."""
    needed = autocast_dtype(options, device) is torch.float16
    return torch.amp.GradScaler(device.type, enabled=needed)
