import json
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from fdrl_layers.backbones.building import build_backbone, prepared_backbone

VIT = dict.fromkeys(("hidden_size", "intermediate_size", "image_size"), 16)
VIT |= {"num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 8}


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize(
    ("library", "source", "options"),
    [
        ("torchvision", "torchvision:mobilenet_v3_small", {"width_mult": 0.5}),
        ("timm", "timm:resnet10t", {"in_chans": 1}),
        ("transformers", "hf:vit", {**VIT, "add_pooling_layer": False}),
    ],
)
def test_builds_the_same_again_from_what_it_says(
    library: str, source: str, options: dict[str, Any]
) -> None:
    pytest.importorskip(library)
    built = build_backbone(source, options)
    stored = json.loads(json.dumps(built.options))
    assert built.source
    assert options.items() <= stored.items()
    again = build_backbone(built.source, stored)
    assert shapes(again.module) == shapes(built.module)
    assert (again.source, again.options) == (built.source, built.options)


def test_builds_from_a_folder_and_loads_weights_where_asked_to(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    saved = transformers.ViTModel(transformers.ViTConfig(**VIT))
    saved.save_pretrained(tmp_path)
    built = build_backbone(f"hf:{tmp_path}")
    assert built.source == "hf:vit"
    assert built.module.config.hidden_size == 16  # type: ignore[union-attr]
    # Nothing of the folder stays, for another machine may not have it.
    assert str(tmp_path) not in json.dumps(built.options)
    assert shapes(build_backbone("hf:vit", built.options).module) == shapes(built.module)
    loaded = build_backbone(f"hf:{tmp_path}", {"pretrained": True})
    for name, tensor in saved.state_dict().items():
        assert torch.equal(loaded.module.state_dict()[name], tensor)
    assert "pretrained" not in loaded.options
    name = "embeddings.cls_token"
    assert not torch.equal(built.module.state_dict()[name], saved.state_dict()[name])


def test_asks_torchvision_for_weights_and_forgets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    models = pytest.importorskip("torchvision.models")
    get_model = Mock(return_value=models.resnet18())
    monkeypatch.setattr(models, "get_model", get_model)
    built = build_backbone("torchvision:resnet18", {"weights": "DEFAULT"})
    get_model.assert_called_once_with("resnet18", weights="DEFAULT")
    assert built.options == {}


def test_keeps_what_two_models_set_by_themselves() -> None:
    pytest.importorskip("torchvision")
    options = {"init_weights": False}
    kept = {"transform_input": False, "aux_logits": True}
    assert build_backbone("torchvision:googlenet", options).options == options | kept


@pytest.mark.parametrize(
    ("source", "options", "match"),
    [
        ("resnet18", {}, "`backbone` must be a module or a name such as 'timm:resnet18'"),
        ("timm:", {}, "`backbone` must be a module or a name"),
        ("keras:resnet18", {}, "`backbone` must be one of 'timm', .*'hf', got 'keras'"),
        ("timm:resnet", {}, "timm has no model 'resnet'; close to it are .*resnet"),
        ("timm:hf-hub:someone/something", {}, "timm has no model 'hf-hub:someone/something'"),
        ("torchvision:resnet17", {}, "torchvision has no model 'resnet17'; close to it are"),
        ("hf:someone/something", {}, r"'hf:someone/something' .*'pretrained': True"),
        ("timm:resnet18", {"num_classes": 3}, "`backbone_options` must not hold 'num_classes'"),
        ("torchvision:resnet18", {"num_classes": 3}, "must not hold 'num_classes'"),
    ],
)
def test_rejects_names(source: str, options: dict[str, Any], match: str) -> None:
    for library in ("timm", "torchvision", "transformers"):
        pytest.importorskip(library)
    with pytest.raises(ValueError, match=match):
        build_backbone(source, options)


@pytest.mark.parametrize(
    ("source", "library", "extra"),
    [
        ("timm:resnet18", "timm", "timm"),
        ("torchvision:resnet18", "torchvision", "vision"),
        ("hf:vit", "transformers", "hf"),
    ],
)
def test_says_which_extra_has_a_library(
    source: str, library: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    match = rf'{source}.* needs {library}, .*pip install "fdrl-layers\[{extra}\]"'
    with pytest.raises(ImportError, match=match):
        build_backbone(source)


def test_takes_a_module_as_it_is() -> None:
    module = nn.Flatten()
    assert prepared_backbone(module, None) == (module, None, {})
    with pytest.raises(ValueError, match="`backbone_options` must be None where"):
        prepared_backbone(module, {"pretrained": True})
    bad: Any = 3
    with pytest.raises(TypeError, match=r"`backbone` must be a .* or a string, got int"):
        prepared_backbone(bad, None)
