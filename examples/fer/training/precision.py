"""Which type the products of a training have."""

from contextlib import AbstractContextManager

import torch

from fer.options import Options


def product_type(options: Options, device: torch.device) -> torch.dtype:
    """Return the type that products are cast to; float32 where they are not."""
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
    """Return autocast to that type; without `cache` it casts a weight each time it is used."""
    dtype = product_type(options, device)
    lowered = dtype is not torch.float32
    return torch.autocast(
        device.type, dtype if lowered else None, enabled=lowered, cache_enabled=cache
    )


def gradient_scaler(options: Options, device: torch.device) -> torch.amp.GradScaler:
    """Return what keeps small gradients above float16's smallest number; idle elsewhere."""
    needed = product_type(options, device) is torch.float16
    return torch.amp.GradScaler(device.type, enabled=needed)
