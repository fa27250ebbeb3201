"""Models saved as folders of options, weights and model card, as on the Hugging Face Hub."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import nn

from fdrl_layers._card import model_card
from fdrl_layers._optional import optional

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
ABOUT = ("architectures", "fdrl_layers_version", "classes")
"""The entries of a configuration that are not options of the model."""


class HubMixin:
    """Adds `save_pretrained` and `from_pretrained` to a module that returns its own options."""

    def _hub_options(self) -> dict[str, Any]:
        """Return the options that rebuild the module, all of which JSON can store."""
        raise NotImplementedError

    @classmethod
    def _from_hub_options(cls, options: Mapping[str, Any]) -> Self:
        """Build a module from the options that `_hub_options` returned."""
        return cls(**options)

    def _hub_needs(self) -> tuple[str, ...]:
        """Return the names of the options that JSON cannot store."""
        return ()

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        classes: Sequence[str] | None = None,
        license: str | None = None,
    ) -> None:
        """Write `config.json`, `model.safetensors` and a model card, `README.md`, to a folder.

        An existing card is kept, as its author may have edited it.

        Args:
            folder: The folder to write to; it is created if it does not exist.
            classes: The names of the classes in the order of the logits, for the configuration
                and the card.
            license: License of the weights as the Hub spells it, such as "mit"; if None, the card
                leaves it open.

        Raises:
            ImportError: If safetensors is not installed (the extra "hub").
            TypeError: If `classes` is a string.
            ValueError: If `classes` are not as many as the logits, or JSON cannot store an option.
        """
        module = cast(nn.Module, self)
        safetensors = optional("safetensors.torch", "hub", "save_pretrained")
        config = _about(type(self).__name__) | self._hub_options()
        number: Any = getattr(module, "head", module).num_classes
        if classes is not None:
            config["classes"] = _checked_classes(classes, number)
        text = _as_json(config)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        safetensors.save_model(module, str(folder / WEIGHTS), metadata={"format": "pt"})
        (folder / CONFIG).write_text(text, encoding="utf-8")
        if not (folder / CARD).exists():
            card = model_card(config, number, classes, license, self._hub_needs())
            (folder / CARD).write_text(card, encoding="utf-8")

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        strict: bool = True,
        device: torch.device | str = "cpu",
        revision: str | None = None,
        **options: Any,
    ) -> Self:
        """Build a module from a saved folder, in evaluation mode and in the saved types.

        Args:
            folder: A folder, or the name of a repository on the Hugging Face Hub, which is
                downloaded if there is no such folder.
            strict: Whether the module and the file must have the same tensors.
            device: Device of the module.
            revision: A branch, tag or commit of the repository.
            options: Options of the class that replace stored ones, or that could not be stored.

        Raises:
            FileNotFoundError: If the folder lacks its configuration or weights.
            ImportError: If safetensors, or for downloads huggingface_hub, is not installed
                (the extra "hub").
            RuntimeError: If the tensors do not fit.
            ValueError: If the folder holds another class of model, or an option is missing.
        """
        safetensors = optional("safetensors.torch", "hub", "from_pretrained")
        found = _found(folder, revision)
        config = json.loads((found / CONFIG).read_text(encoding="utf-8"))
        _check_kind(cls.__name__, config, found)
        stored = {name: value for name, value in config.items() if name not in ABOUT}
        instance = cls._from_hub_options(stored | options)
        module = cast(nn.Module, instance)
        _take_types(module, found / WEIGHTS)
        safetensors.load_model(module, str(found / WEIGHTS), strict=strict)
        module.to(device).eval()
        return instance


def _about(kind: str) -> dict[str, Any]:
    import fdrl_layers

    return {"architectures": [kind], "fdrl_layers_version": fdrl_layers.__version__}


def _checked_classes(classes: Sequence[str], number: int) -> list[str]:
    if isinstance(classes, str):
        raise TypeError(f"`classes` must be a sequence of names, got str: {classes!r}")
    if len(classes) != number:
        raise ValueError(f"`classes` must be {number} names, got {len(classes)}")
    return list(classes)


def _as_json(config: Mapping[str, Any]) -> str:
    for name, value in config.items():
        try:
            json.dumps(value)
        except TypeError as error:
            raise ValueError(f"`{name}` must be fit for JSON to be saved: {error}") from error
    return json.dumps(config, indent=2) + "\n"


def _found(folder: str | Path, revision: str | None) -> Path:
    """Return the local folder, after a download if the name can only be that of a repository."""
    found = Path(folder)
    if not found.is_dir():
        if str(folder).count("/") != 1 or str(folder).startswith((".", "/", "~")):
            raise FileNotFoundError(f"there is no folder {folder}")
        hub = optional("huggingface_hub", "hub", f"from_pretrained({str(folder)!r})")
        wanted = [CONFIG, WEIGHTS]
        found = Path(hub.snapshot_download(str(folder), revision=revision, allow_patterns=wanted))
    for name in (CONFIG, WEIGHTS):
        if not (found / name).is_file():
            raise FileNotFoundError(f"{folder} holds no {name}")
    return found


def _check_kind(kind: str, config: Mapping[str, Any], folder: Path) -> None:
    kinds = config.get("architectures")
    if kinds != [kind]:
        raise ValueError(f"{folder} must hold a {kind}, its {CONFIG} says {kinds}")


def _take_types(module: nn.Module, file: Path) -> None:
    """Convert each tensor of a module to its type in the file, as loading casts to the module's."""
    safetensors = optional("safetensors", "hub", "from_pretrained")
    with safetensors.safe_open(str(file), framework="pt") as opened:
        names = set(opened.keys())
        for name, tensor in module.state_dict(keep_vars=True).items():
            if name in names:
                tensor.data = tensor.data.to(opened.get_tensor(name).dtype)
