"""Load pretrained weights into a backbone and report which tensors match."""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

PREFIXES = ("module.", "backbone.", "model.", "0.")
"""Prefixes that DataParallel, wrappers and our own checkpoints add to a name."""
SEQUENTIAL_LAYERS = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
"""The layers that a ResNet without its classifier numbers as `features.0` to `features.7`."""
CONTAINERS = ("ema", "model", "state_dict", "model_state_dict")


@dataclass(frozen=True)
class LoadResult:
    """The result of loading a file into a backbone.

    Attributes:
        num_filled: Number of the backbone's tensors that the file filled.
        unused: Names in the file that the backbone does not use, such as its classifier.
    """

    num_filled: int
    unused: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{self.num_filled} tensors filled"
        return f"{text}; not used: {_format_first(self.unused)}" if self.unused else text


def fill_backbone(backbone: nn.Module, path: Path) -> LoadResult:
    """Fill every parameter and statistic of a backbone from a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read as tensors alone, does not fill the whole backbone, or has
            two tensors for the same parameter.
    """
    tensors, wanted = read_tensors(path), backbone.state_dict()
    names = {name: _to_resnet_name(name) for name in tensors}
    used = {own: name for name, own in names.items() if own in wanted}
    unused = tuple(sorted(name for name, own in names.items() if used.get(own) != name))
    for name in unused:
        if names[name] in used:
            raise ValueError(f"{path}: {name} and {used[names[name]]} fill the same tensor")
    found = {own: tensors[name] for own, name in used.items()}
    # Files from before PyTorch 0.4.1 lack these counters, which matter only without a momentum.
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
            f"{'; '.join(problem + shapes[:3])}. It holds {_format_first(sorted(tensors))}"
        )
    backbone.load_state_dict(wanted | found)
    return LoadResult(len(found), unused)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint file without executing code from it."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} of weights")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} does not hold tensors and plain values alone. If you trust it, read it by "
            "torch.load(FILE, weights_only=False), and write its state_dict by torch.save"
        ) from error
    except Exception as error:  # Unpickling raises many types for damaged files, e.g. KeyError.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} cannot be read: {reason}") from error
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
        from safetensors import SafetensorError, torch as safetensors
    except ImportError as error:
        raise ValueError(f"{path}: to read it, pip install safetensors") from error
    try:
        tensors: dict[str, Tensor] = safetensors.load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    return tensors


def _to_resnet_name(name: str) -> str:
    """Return the name in a ResNet of a tensor with a name from a file."""
    while name.startswith(PREFIXES):
        name = name.split(".", 1)[1]
    for number, layer in enumerate(SEQUENTIAL_LAYERS):
        if name.startswith(f"features.{number}."):
            return f"{layer}.{name.split('.', 2)[2]}"
    return name


def _format_first(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
