import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn

import fdrl_layers
from fdrl_layers import FDRLHead, FDRLModel, attach_head

safetensors = pytest.importorskip("safetensors.torch")

SMALL: dict[str, Any] = {"latent_dim": 6, "num_latents": 3}
EXPRESSIONS = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
NAME = "torchvision:shufflenet_v2_x0_5"


def alike(a: nn.Module, b: nn.Module) -> None:
    """Hold two modules to the same tensors, bit for bit and in the same types."""
    torch.testing.assert_close(a.state_dict(), b.state_dict(), rtol=0, atol=0)


def small_net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())


def config_in(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


@pytest.fixture
def saved(tmp_path: Path) -> FDRLHead:
    """A head that lies in `tmp_path`."""
    head = FDRLHead(5, 7, **SMALL)
    head.save_pretrained(tmp_path)
    return head


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"intra": False, "bias": False},
        {"inter": False, "delta": 0.25, "reduction": "mean", "recompute": True},
        {"backend": "torch", "reduction": "share", "gate_init": "linear"},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_head_comes_back(options: dict[str, Any], dtype: torch.dtype, tmp_path: Path) -> None:
    head = FDRLHead(5, 7, **SMALL, **options, dtype=dtype)
    head.save_pretrained(tmp_path)
    again = FDRLHead.from_pretrained(tmp_path)
    alike(head, again)
    assert again._hub_options() == head._hub_options()
    assert not again.training
    x = torch.randn(4, 5, dtype=dtype)
    assert torch.equal(again(x).logits, head(x).logits)


def test_a_folder_from_before_an_option_comes_back(saved: FDRLHead, tmp_path: Path) -> None:
    config = config_in(tmp_path)
    del config["gate_init"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    alike(saved, FDRLHead.from_pretrained(tmp_path))


def test_all_options_are_in_the_configuration(saved: FDRLHead, tmp_path: Path) -> None:
    known = inspect.signature(FDRLHead).parameters.keys() - {"device", "dtype"}
    about = {"architectures": ["FDRLHead"], "fdrl_layers_version": fdrl_layers.__version__}
    assert config_in(tmp_path).keys() == known | about.keys()
    assert config_in(tmp_path).items() >= about.items()
    FDRLModel(small_net(), FDRLHead(8, 7)).save_pretrained(tmp_path)
    assert config_in(tmp_path).keys() == inspect.signature(FDRLModel).parameters.keys() | about
    assert config_in(tmp_path)["head"].keys() == known


def test_model_from_a_name_comes_back_from_the_folder_alone(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    model = attach_head(NAME, 7, image_size=32, **SMALL).half()
    model.save_pretrained(tmp_path, classes=EXPRESSIONS)
    again = FDRLModel.from_pretrained(tmp_path)
    alike(model, again)
    assert (again.source, again.pool) == (NAME, "auto")
    assert config_in(tmp_path)["classes"] == list(EXPRESSIONS)


def test_weights_are_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = pytest.importorskip("torchvision.models")
    build: Callable[..., nn.Module] = models.get_model
    get_model = Mock(side_effect=lambda name, weights=None, **options: build(name, **options))
    monkeypatch.setattr(models, "get_model", get_model)
    options = {"weights": "DEFAULT"}
    model = FDRLModel(NAME, FDRLHead(1024, 7, **SMALL), backbone_options=options)
    model.save_pretrained(tmp_path)
    alike(FDRLModel.from_pretrained(tmp_path), model)
    assert [asked.kwargs for asked in get_model.call_args_list] == [options, {}]


def test_model_of_transformers_comes_back(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    options = {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1]}
    model = attach_head("hf:resnet", 7, backbone_options=options, image_size=32, **SMALL)
    model.save_pretrained(tmp_path)
    alike(FDRLModel.from_pretrained(tmp_path), model)


class Brightest(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(()))

    def forward(self, maps: Tensor) -> Tensor:
        return self.scale * maps.amax((2, 3))


class OtherHead(FDRLHead):
    def __init__(self) -> None:
        super().__init__(8, 7, **SMALL)


@pytest.mark.parametrize("also", [{}, {"pool": Brightest}, {"head": OtherHead}], ids=list)
def test_model_asks_for_each_module_that_is_not_ours(also: dict[str, Any], tmp_path: Path) -> None:
    def made() -> dict[str, Any]:
        return {"backbone": small_net(), **{name: kind() for name, kind in also.items()}}

    model = FDRLModel(**{"head": FDRLHead(8, 7, **SMALL), **made()})
    model.save_pretrained(tmp_path)
    given = made()
    alike(FDRLModel.from_pretrained(tmp_path, **given), model)
    shown = "".join(f", {name}=..." for name in given)
    assert f'from_pretrained("FOLDER-OR-NAME"{shown})' in (tmp_path / "README.md").read_text()
    missing, _ = given.popitem()
    with pytest.raises(ValueError, match=rf"`{missing}` must be given: .* not ours"):
        FDRLModel.from_pretrained(tmp_path, **given)


def test_takes_the_classifier_off_the_module_given(tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision.models")
    model = attach_head(models.shufflenet_v2_x0_5(), 7, image_size=32, **SMALL)
    model.save_pretrained(tmp_path)
    alike(FDRLModel.from_pretrained(tmp_path, backbone=models.shufflenet_v2_x0_5()), model)


def test_shared_parameters_stay_shared(tmp_path: Path) -> None:
    def shared() -> nn.Sequential:
        first, second = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
        second.weight = first.weight
        return nn.Sequential(first, second)

    model = attach_head(shared(), 7, **SMALL).half()
    model.save_pretrained(tmp_path)
    again = FDRLModel.from_pretrained(tmp_path, backbone=shared())
    alike(again, model)
    first, second = again.backbone.children()
    assert first.weight is second.weight


def test_options_given_replace_those_stored(saved: FDRLHead, tmp_path: Path) -> None:
    head = FDRLHead.from_pretrained(tmp_path, backend="torch", recompute=True, device="meta")
    assert (head.backend, head.recompute) == ("torch", True)
    assert {parameter.device.type for parameter in head.parameters()} == {"meta"}
    with pytest.raises(RuntimeError, match="size mismatch"):
        FDRLHead.from_pretrained(tmp_path, num_classes=6)
    with pytest.raises(TypeError, match="latents"):
        FDRLHead.from_pretrained(tmp_path, latents=3)


def test_is_strict_unless_told_otherwise(saved: FDRLHead, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    tensors = safetensors.load_file(file)
    kept = tensors.pop("classifier.bias")
    safetensors.save_file(tensors, file)
    with pytest.raises(RuntimeError, match=r"classifier\.bias"):
        FDRLHead.from_pretrained(tmp_path)
    loose = FDRLHead.from_pretrained(tmp_path, strict=False)
    assert torch.equal(loose.decomposition.weight, saved.decomposition.weight)
    safetensors.save_file(tensors | {"classifier.bias": kept, "extra": kept.clone()}, file)
    with pytest.raises(RuntimeError, match="extra"):
        FDRLHead.from_pretrained(tmp_path)


def test_card_says_what_the_model_is(tmp_path: Path) -> None:
    FDRLHead(5, 7, **SMALL).save_pretrained(tmp_path, classes=EXPRESSIONS, license="mit")
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\n")
    assert "\nlicense: mit\n" in card
    assert "order of the logits: " + ", ".join(EXPRESSIONS) in card
    assert "## Responsible use" in card
    assert 'FDRLHead.from_pretrained("FOLDER-OR-NAME")' in card
    hub = pytest.importorskip("huggingface_hub")
    data = hub.ModelCard.load(tmp_path / "README.md").data
    assert (data.license, data.library_name) == ("mit", "fdrl-layers")
    assert "fdrl" in data.tags
    metadata = hub.parse_local_safetensors_file_metadata(tmp_path / "model.safetensors")
    assert metadata.metadata == {"format": "pt"}


def test_card_leaves_open_what_only_its_author_knows(saved: FDRLHead, tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    assert "# license: to be chosen by the author" in card.read_text()
    assert "The names of its classes were not given" in card.read_text()
    card.write_text("The author's own words.")
    saved.save_pretrained(tmp_path)
    assert card.read_text() == "The author's own words."


def test_downloads_a_name(saved: FDRLHead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    download = Mock(return_value=str(tmp_path))
    monkeypatch.setattr(hub, "snapshot_download", download)
    alike(FDRLHead.from_pretrained("someone/something", revision="v1"), saved)
    wanted = ["config.json", "model.safetensors"]
    download.assert_called_once_with("someone/something", revision="v1", allow_patterns=wanted)


def test_says_what_is_wrong_with_a_folder(tmp_path: Path) -> None:
    for folder in ("./nothing", "nothing", "/nothing/here", "a/b/c"):
        with pytest.raises(FileNotFoundError, match="there is no folder"):
            FDRLHead.from_pretrained(folder)
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        FDRLHead.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"holds no model\.safetensors"):
        FDRLHead.from_pretrained(tmp_path)
    attach_head(small_net(), 7, **SMALL).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"must hold a FDRLHead, .* says \['FDRLModel'\]"):
        FDRLHead.from_pretrained(tmp_path)


def test_says_what_cannot_be_stored_and_stores_nothing(tmp_path: Path) -> None:
    model = FDRLModel(small_net(), FDRLHead(8, 7, **SMALL))
    with pytest.raises(ValueError, match="`classes` must be 7 names, got 6"):
        model.save_pretrained(tmp_path, classes=EXPRESSIONS[:6])
    with pytest.raises(TypeError, match="`classes` must be a sequence of names, got str"):
        model.save_pretrained(tmp_path, classes="abcdefg")
    model.source_options = {"norm_layer": nn.BatchNorm2d}
    with pytest.raises(ValueError, match="`backbone_options` must be fit for JSON"):
        model.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_names_the_extra(saved: FDRLHead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r'huggingface_hub, .*"fdrl-layers\[hub\]"'):
        FDRLHead.from_pretrained("someone/something")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r'save_pretrained needs safetensors.*\[hub\]"'):
        saved.save_pretrained(tmp_path)
    with pytest.raises(ImportError, match=r'from_pretrained needs safetensors.*\[hub\]"'):
        FDRLHead.from_pretrained(tmp_path)
