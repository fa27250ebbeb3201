from collections.abc import Callable
from functools import partial
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fdrl_layers.backbones.classifier import (
    find_classifier,
    named_classifier,
    put,
    take_off,
    without_head,
)
from fdrl_layers.backbones.dry_run import blank_images

IMAGES = torch.zeros(2, 3, 8, 8)


class Net(nn.Module):
    """Maps, pooled and flattened, and then whatever is given by name, in that order."""

    def __init__(self, after: Callable[[Tensor], Tensor] | None = None, **layers: nn.Module):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.after = after

    def forward(self, images: Tensor) -> Tensor:
        feature = images
        for layer in self.children():
            feature = layer(feature)
        return feature if self.after is None else self.after(feature)


def linear(width: int = 6) -> nn.Linear:
    return nn.Linear(width, width)


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        (Net(fc=linear()), "fc"),
        (Net(head=linear()), "head"),
        (Net(heads=nn.Sequential(linear())), "heads.0"),
        (Net(classifier=nn.Sequential(linear(), nn.ReLU(), linear())), "classifier.2"),
        (Net(classifier=nn.Sequential(linear(), nn.Dropout())), "classifier.0"),
        (Net(fc=nn.Identity()), None),
        (Net(classifier=nn.Sequential(linear(), nn.ReLU(True), nn.Dropout(), nn.Identity())), None),
        # The face networks of the ArcFace family: their `fc` makes the feature.
        (Net(fc=linear(), features=nn.BatchNorm1d(6)), None),
        (Net(fc=linear(), activation=nn.ReLU(inplace=True)), None),
        (Net(), None),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), None),
    ],
    ids=str,
)
def test_finds_what_the_backbone_ends_in(net: nn.Module, expected: str | None) -> None:
    net.train()
    assert find_classifier(net, lambda: IMAGES) == expected
    assert net.training
    assert not any(part._forward_hooks for part in net.modules())


@pytest.mark.parametrize(
    ("net", "name"),
    [
        (Net(projection=linear()), "projection"),
        (Net(projection=linear(), dropout=nn.Dropout()), "projection"),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), "1"),
        (Net(F.normalize, fc=linear()), "fc"),
        (Net(partial(F.log_softmax, dim=1), classifier=linear()), "classifier"),
    ],
    ids=str,
)
def test_asks_where_the_last_linear_layer_may_be_part_of_the_feature(
    net: nn.Module, name: str
) -> None:
    with pytest.raises(ValueError, match=f"`classifier` must be given: .* classifier='{name}'"):
        find_classifier(net, lambda: IMAGES)
    assert not any(part._forward_hooks for part in net.modules())


def test_believes_what_timm_models_say() -> None:
    net = Net(neck=linear(), score=linear())
    said = Mock(side_effect=[net.score, nn.Identity(), (net.neck, net.score)])
    object.__setattr__(net, "get_classifier", said)
    assert find_classifier(net, lambda: IMAGES) == "score"
    assert find_classifier(net, lambda: IMAGES) is None
    with pytest.raises(ValueError, match=r"more than one classifier.*num_classes=0"):
        find_classifier(net, lambda: IMAGES)


def test_asks_for_what_is_not_compiled() -> None:
    with pytest.raises(ValueError, match="`backbone` must not be compiled yet"):
        find_classifier(torch.compile(Net(fc=linear())), lambda: IMAGES)  # type: ignore[arg-type]


def test_takes_off_and_puts_back() -> None:
    net = Net(classifier=nn.Sequential(linear(), nn.ReLU(), linear()))
    layer = net.get_submodule("classifier.2")
    assert take_off(net, "classifier.2") is layer
    assert isinstance(net.get_submodule("classifier.2"), nn.Identity)
    put(net, "classifier.2", layer)
    assert net.get_submodule("classifier.2") is layer
    for name in ("", "nothing", "classifier.7", "after"):
        with pytest.raises(ValueError, match=f"`classifier` must name a layer .*got '{name}'"):
            take_off(net, name)


def test_finds_the_classifier_of_every_kind_of_torchvision_model() -> None:
    models = pytest.importorskip("torchvision.models")
    expected = {
        "fc": "resnet18 shufflenet_v2_x0_5",
        "classifier": "densenet121",
        "classifier.1": "squeezenet1_0 mobilenet_v2 efficientnet_b0 mnasnet0_5",
        "classifier.2": "convnext_tiny",
        "classifier.3": "mobilenet_v3_small",
        "classifier.5": "maxvit_t",
        "classifier.6": "vgg11 alexnet",
        "heads.head": "vit_b_16",
        "head": "swin_t",
    }
    with torch.device("meta"):
        for classifier, names in expected.items():
            for name in names.split():
                assert named_classifier(models.get_model(name)) == classifier, name


def test_runs_and_names_agree_on_torchvision() -> None:
    models = pytest.importorskip("torchvision.models")
    for name in ("resnet18", "mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5"):
        model = models.get_model(name)
        images = partial(blank_images, model, 64)
        found = find_classifier(model, images)
        assert found == named_classifier(model)
        assert found is not None
        take_off(model, found)
        assert find_classifier(model, images) is None


def test_takes_the_base_of_a_transformers_model_and_leaves_others() -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1], "num_labels": 7}
    model = transformers.ResNetForImageClassification(transformers.ResNetConfig(**sizes))
    base, other = without_head(model), Net()
    assert base is model.resnet
    assert without_head(base) is base
    assert without_head(other) is other
    assert find_classifier(base, lambda: IMAGES) is None
