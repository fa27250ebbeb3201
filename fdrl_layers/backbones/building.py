"""Building a backbone from a name such as "timm:resnet18", without its classifier."""

import difflib
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from fdrl_layers._checks import check_choice
from fdrl_layers._optional import optional
from fdrl_layers.backbones.classifier import named_classifier, take_off, without_head

Options = Mapping[str, Any]


class Built(NamedTuple):
    """A backbone with the name and the options that rebuild it without its weights."""

    module: nn.Module
    source: str | None
    options: dict[str, Any]


def prepared_backbone(backbone: nn.Module | str, options: Options | None) -> Built:
    """Build a backbone from its name, or use the given module, without the head of its library."""
    if isinstance(backbone, str):
        return build_backbone(backbone, options)
    if not isinstance(backbone, nn.Module):
        got = type(backbone).__name__
        raise TypeError(f"`backbone` must be a torch.nn.Module or a string, got {got}")
    if options:
        raise ValueError("`backbone_options` must be None where `backbone` is a module")
    return Built(without_head(backbone), None, {})


def build_backbone(source: str, options: Options | None = None) -> Built:
    """Build "timm:NAME", "torchvision:NAME" or "hf:NAME" with the library of that name.

    Nothing is downloaded unless the options request weights: `pretrained=True` for timm and
    transformers, `weights="DEFAULT"` for torchvision.
    """
    library, colon, name = source.partition(":")
    if not colon or not name:
        raise ValueError(
            "`backbone` must be a module or a name such as 'timm:resnet18', 'torchvision:resnet18'"
            f" or 'hf:resnet', got {source!r}"
        )
    check_choice("backbone", library, BUILDERS)
    return BUILDERS[library](name, dict(options or {}))


def _timm(name: str, options: dict[str, Any]) -> Built:
    timm = optional("timm", "timm", f"backbone 'timm:{name}'")
    _check_name("timm", name.partition(".")[0], timm.list_models())
    _check_no_classes(options)
    module: nn.Module = timm.create_model(name, num_classes=0, **options)
    return Built(module, f"timm:{name}", _without(options, "pretrained", "checkpoint_path"))


def _torchvision(name: str, options: dict[str, Any]) -> Built:
    models = optional("torchvision.models", "vision", f"backbone 'torchvision:{name}'")
    _check_name("torchvision", name, models.list_models())
    _check_no_classes(options)
    module: nn.Module = models.get_model(name, **options)
    classifier = named_classifier(module)
    if classifier is None:
        raise ValueError(f"`backbone` 'torchvision:{name}' has no classifier that we know")
    take_off(module, classifier)
    stored = _without(options, "weights")
    # Two models set these by themselves if weights are requested.
    for switch in ("transform_input", "aux_logits"):
        if hasattr(module, switch):
            stored[switch] = getattr(module, switch)
    return Built(module, f"torchvision:{name}", stored)


def _transformers(name: str, options: dict[str, Any]) -> Built:
    transformers = optional("transformers", "hf", f"backbone 'hf:{name}'")
    # An option of the models, not of their configurations.
    of_model = {key: options.pop(key) for key in ("add_pooling_layer",) if key in options}
    if options.pop("pretrained", False):
        module = transformers.AutoModel.from_pretrained(name, **of_model, **options)
    else:
        if name in transformers.CONFIG_MAPPING:
            config = transformers.AutoConfig.for_model(name, **options)
        elif Path(name).exists():
            config = transformers.AutoConfig.from_pretrained(name, **options)
        else:
            raise ValueError(
                f"`backbone` 'hf:{name}' must be a type of model that transformers knows, such as "
                "'hf:vit', or a folder or file with its configuration; to load it from the Hub, "
                "give backbone_options={'pretrained': True}"
            )
        module = transformers.AutoModel.from_config(config, **of_model)
    stored = json.loads(module.config.to_json_string(use_diff=False))
    unneeded = ("model_type", "architectures", "transformers_version", "id2label", "label2id")
    source = f"hf:{module.config.model_type}"
    return Built(module, source, _without(stored, *unneeded, "_name_or_path") | of_model)


BUILDERS: dict[str, Callable[[str, dict[str, Any]], Built]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "hf": _transformers,
}


def _check_name(library: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        close = difflib.get_close_matches(name, known)
        hint = f"; close to it are {', '.join(close)}" if close else ""
        raise ValueError(f"`backbone`: {library} has no model {name!r}{hint}")


def _check_no_classes(options: Options) -> None:
    if "num_classes" in options:
        raise ValueError("`backbone_options` must not hold 'num_classes': the head has the classes")


def _without(options: Options, *names: str) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in names}
