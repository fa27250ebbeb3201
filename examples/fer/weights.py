"""Weights that others trained, put into a ResNet-18 with a count of what fitted."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

PREFIXES = ("module.", "backbone.", "model.", "0.")
"""What DataParallel, wrappers and our own checkpoints write before a name."""
CONTAINERS = ("ema", "model", "state_dict", "model_state_dict")


@dataclass(frozen=True)
class Matched:
    """What a file gave to a backbone.

    Attributes:
        filled: Number of the backbone's tensors that the file filled.
        left: Names in the file that the backbone has no use for, such as its classifier.
    """

    filled: int
    left: tuple[str, ...]

    def __str__(self) -> str:
        said = f"{self.filled} tensors filled"
        if not self.left:
            return said
        named = ", ".join(self.left[:4]) + (", ..." if len(self.left) > 4 else "")
        return f"{said}; not used: {named}"


def fill_backbone(backbone: nn.Module, path: Path) -> Matched:
    """Fill every parameter and statistic of a ResNet-18 from a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read as tensors alone, or does not fill the whole backbone.
    """
    found = {_stripped(name): value for name, value in read_tensors(path).items()}
    wanted = backbone.state_dict()
    # Files from before PyTorch 0.4.1 lack these counters, which only matter without a momentum.
    optional = {name for name in wanted if name.endswith("num_batches_tracked")}
    missing = [name for name in wanted if name not in found and name not in optional]
    shapes = [
        f"{name} is {tuple(found[name].shape)} and not {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in found and found[name].shape != value.shape
    ]
    if missing or shapes:
        problem = [f"{len(missing)} are missing, {missing[0]} first"] if missing else []
        raise ValueError(
            f"{path} does not fill the backbone: of {len(wanted)} tensors "
            f"{'; '.join(problem + shapes[:3])}. It holds {', '.join(sorted(found)[:5])}, ..."
        )
    chosen = {name: found[name] for name in wanted if name in found}
    backbone.load_state_dict(wanted | chosen)
    return Matched(len(chosen), tuple(sorted(found.keys() - wanted.keys())))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint file, without running any code in it."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} of weights")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"{path} cannot be read as tensors and plain values: {first}") from error
    for name in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    tensors = _tensors(content)
    if not tensors:
        raise ValueError(f"{path} holds no dictionary of tensors")
    return tensors


def _tensors(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    return {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import torch as safetensors
    except ImportError as error:
        raise ValueError(f"{path}: to read it, pip install safetensors") from error
    tensors: dict[str, Tensor] = safetensors.load_file(path)
    return tensors


def _stripped(name: str) -> str:
    while name.startswith(PREFIXES):
        name = name.split(".", 1)[1]
    return name
