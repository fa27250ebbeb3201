import copy
import io
import pickle
from collections.abc import Callable, Mapping
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import Permute

from fdrl_layers import FDRLHead, FDRLLoss, FDRLModel, FDRLOutput, attach_head

SMALL: dict[str, Any] = {"latent_dim": 6, "num_latents": 3}


class Net(nn.Module):
    """A small network of the shape of ResNet: body, mean, `fc`."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.dropout = nn.Dropout()
        self.fc: nn.Module = nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.dropout(self.body(images).mean((2, 3))))  # type: ignore[no-any-return]


def face_net() -> nn.Sequential:
    """A network as those trained with ArcFace: `fc` makes the feature, for one size of images."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.PReLU(4))
    net.extend([nn.Conv2d(4, 4, 3, stride=4, padding=1), nn.BatchNorm2d(4), nn.Flatten()])
    net.add_module("fc", nn.Linear(4 * 28 * 28, 16))
    net.add_module("features", nn.BatchNorm1d(16))
    return net


def images(number: int = 4, side: int = 12) -> Tensor:
    return torch.randn(number, 3, side, side)


def test_puts_the_head_in_the_place_of_the_classifier() -> None:
    backbone = Net()
    model = attach_head(backbone, 7, **SMALL).eval()
    assert model.backbone is backbone
    assert isinstance(backbone.fc, nn.Identity)
    assert model.classifier == "fc"
    assert model.head.in_features == 8
    x = images()
    feature = backbone(x)
    assert torch.equal(model.basic_feature(x), feature)
    expected, actual = model.head(feature), model(x)
    assert isinstance(actual, FDRLOutput)
    assert torch.equal(actual.logits, expected.logits)
    assert torch.equal(actual.latents, expected.latents)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(copied(x).logits, expected.logits)


def test_passes_the_options_of_the_head_on() -> None:
    options = SMALL | {"delta": 0.25, "inter": False, "reduction": "mean", "gate_init": "linear"}
    options["backend"] = "torch"
    assert attach_head(Net(), 7, **options).head._hub_options().items() >= options.items()


def test_makes_the_head_where_the_backbone_is_and_in_its_type() -> None:
    model = attach_head(Net().double(), 7, **SMALL)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
    on_meta = attach_head(Net().to("meta"), 7, **SMALL)
    assert {parameter.device.type for parameter in on_meta.parameters()} == {"meta"}
    chosen = attach_head(Net(), 7, dtype=torch.bfloat16, **SMALL)
    assert chosen.head.decomposition.weight.dtype == torch.bfloat16


def test_leaves_the_backbone_and_the_random_state_as_they_were() -> None:
    backbone = Net().train()
    backbone.body.eval()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    modes = [part.training for part in backbone.modules()]
    torch.manual_seed(3)
    model = attach_head(backbone, 7, **SMALL)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    head = FDRLHead(8, 7, **SMALL)
    assert torch.equal(torch.rand(1), drawn)
    assert torch.equal(head.decomposition.weight, model.head.decomposition.weight)
    assert [part.training for part in backbone.modules()] == modes
    after = backbone.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in after)
    assert before.keys() - after.keys() == {"fc.weight", "fc.bias"}


def test_takes_a_face_network_whose_fc_is_no_classifier() -> None:
    backbone = face_net()
    fc = backbone.fc
    with pytest.raises(ValueError, match=r"\(2, 3, 224, 224\).*`image_size`"):
        attach_head(backbone, 7, **SMALL)
    model = attach_head(backbone, 7, image_size=112, **SMALL)
    assert backbone.fc is fc
    assert model.head.in_features == 16
    assert model.classifier is None


def test_puts_the_classifier_back_when_it_fails() -> None:
    backbone = Net()
    fc = backbone.fc
    with pytest.raises(ValueError, match="`latent_dim`"):
        attach_head(backbone, 7, latent_dim=0)
    assert backbone.fc is fc
    with pytest.raises(TypeError, match="`pool` must return"):
        attach_head(backbone, 7, pool=lambda output: [output])  # type: ignore[arg-type, return-value]
    assert backbone.fc is fc


def test_asks_what_to_do_with_a_last_linear_layer() -> None:
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    backbone.append(nn.Linear(8, 5))
    with pytest.raises(ValueError, match="`classifier` must be given"):
        attach_head(backbone, 7)
    assert attach_head(backbone, 7, classifier=None, **SMALL).head.in_features == 5
    assert attach_head(backbone, 7, classifier="3", **SMALL).head.in_features == 8


def test_runs_nothing_that_it_need_not() -> None:
    backbone, hook = Net(), Mock()
    backbone.register_forward_hook(hook)
    model = attach_head(backbone, 7, in_features=8, classifier="fc", **SMALL)
    assert not hook.called
    assert model.head.in_features == 8
    assert isinstance(backbone.fc, nn.Identity)


@pytest.mark.parametrize(
    ("last", "pool", "resolved", "width", "lead"),
    [
        (nn.Identity(), "auto", "mean", 8, (4,)),
        (nn.Flatten(2), "mean", "mean", 36, (4,)),
        (nn.AdaptiveAvgPool2d(1), "auto", "auto", 8, (4,)),
        (nn.Flatten(), "none", "none", 8 * 36, (4,)),
        (nn.Sequential(nn.Flatten(2), Permute([0, 2, 1])), "none", "none", 8, (4, 36)),
    ],
    ids=["maps", "tokens", "pixel", "vector", "head on every token"],
)
def test_decides_how_to_pool(last: Any, pool: Any, resolved: str, width: int, lead: Any) -> None:
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), last)
    model = attach_head(backbone, 7, pool=pool, image_size=12, **SMALL)
    assert (model.pool, model.head.in_features) == (resolved, width)
    output = model(images(side=12))
    assert (output.logits.shape, output.intra_weights.shape) == ((*lead, 7), (*lead, 3))


class Several(nn.Module):
    """Gives maps of two scales by name, as a feature extractor does."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.second = nn.Conv2d(4, 8, 3)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        first = self.first(images)
        return {"fine": first, "coarse": self.second(first)}


class BothScales(nn.Module):
    """A pooling that learns how to mix two scales."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.ones(2))

    def forward(self, maps: Mapping[str, Tensor]) -> Tensor:
        scales = [scale.mean((2, 3)) for scale in maps.values()]
        return torch.cat([w * scale for w, scale in zip(self.mix, scales, strict=True)], 1)


def test_pools_by_what_is_given() -> None:
    with pytest.raises(TypeError, match=r"'fine', 'coarse'.*give `pool` a function"):
        attach_head(Several(), 7, **SMALL)
    model = attach_head(Several(), 7, pool=BothScales(), **SMALL)
    assert model.head.in_features == 12
    assert "pool.mix" in model.state_dict()
    model(images()).logits.sum().backward()
    assert isinstance(model.pool, BothScales)
    assert model.pool.mix.grad is not None


def test_trains(device: str) -> None:
    torch.manual_seed(0)
    model = attach_head(Net().to(device), 3, reduction="mean", **SMALL)
    assert {each.device.type for each in model.parameters()} == {device}
    criterion = FDRLLoss(3, latent_dim=6, num_latents=3, device=device)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-2)
    x, labels = images(12).to(device), (torch.arange(12) % 3).to(device)
    losses = []
    for _ in range(30):
        loss = criterion(model(x), labels).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_says_where_the_width_is_wrong() -> None:
    model = FDRLModel(Net(), FDRLHead(8, 7, **SMALL))
    with pytest.raises(ValueError, match=r"`head.in_features` = 8, got \(4, 10\).*attach_head"):
        model(images())
    without = FDRLModel(Net(), FDRLHead(8, 7, **SMALL), classifier="fc")
    assert without(images()).logits.shape == (4, 7)


def test_says_that_a_model_in_training_gives_something_else() -> None:
    class Auxiliary(Net):
        def forward(self, images: Tensor) -> Any:
            feature = super().forward(images)
            return (feature, feature) if self.training else feature

    model = attach_head(Auxiliary(), 7, **SMALL).train()
    with pytest.raises(TypeError, match="`backbone` gave a tuple"):
        model(images())


REJECTED: dict[Callable[..., FDRLModel], list[Any]] = {
    FDRLModel: [
        ({"backbone": 3}, TypeError, "`backbone` must be a torch.nn.Module or a string, got int"),
        ({"head": nn.Linear(8, 7)}, TypeError, "`head` must be an FDRLHead, got Linear"),
        ({"pool": "max"}, ValueError, "`pool` must be one of"),
        ({"backbone_options": {"a": 1}}, ValueError, "`backbone_options` must be None"),
        ({"classifier": "head"}, ValueError, "`classifier` must name a layer of `backbone`"),
    ],
    attach_head: [
        ({"num_classes": -1}, ValueError, "`num_classes` must be at least 0"),
        ({"image_size": 0}, ValueError, "`image_size` must be at least 1"),
        ({"in_channels": 1}, ValueError, "failed in a dry run .*`in_channels`"),
        ({"in_features": 0}, ValueError, "`in_features` must be at least 1"),
        ({"pool": "token"}, ValueError, "'token' wants tokens"),
        ({"classifier": "nothing"}, ValueError, "`classifier` must name a layer"),
        ({"latents": 3}, TypeError, "latents"),
    ],
}


@pytest.mark.parametrize(
    ("build", "arguments", "error", "match"),
    [(build, *row) for build, rows in REJECTED.items() for row in rows],
)
def test_rejects_arguments(
    build: Callable[..., FDRLModel], arguments: dict[str, Any], error: type[Exception], match: str
) -> None:
    more: dict[str, Any] = {"num_classes": 7}
    if build is FDRLModel:
        more = {"head": FDRLHead(8, 7, **SMALL)}
    with pytest.raises(error, match=match):
        build(**{"backbone": Net()} | more | arguments)


def test_builds_from_a_name() -> None:
    pytest.importorskip("torchvision")
    name = "torchvision:shufflenet_v2_x0_5"
    model = attach_head(name, 7, image_size=32, **SMALL)
    assert (model.source, model.head.in_features) == (name, 1024)
    again = FDRLModel(name, FDRLHead(1024, 7, **SMALL))
    again.load_state_dict(model.state_dict())
    x = images(2, 32)
    assert torch.equal(again.eval()(x).logits, model.eval()(x).logits)
    assert f"({name}, pool='auto'\n" in repr(again).replace("FDRLModel(\n  ", "(")


def test_takes_the_last_maps_of_a_backbone_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
    model = attach_head(transformers.ResNetBackbone(config), 7, image_size=32, **SMALL)
    assert (model.pool, model.head.in_features) == ("mean", 16)
    assert model(images(2, 32)).logits.shape == (2, 7)


@pytest.mark.parametrize(
    ("pool", "free", "sizes"),
    [
        ("auto", {0: torch.export.Dim("N")}, [(2, 12), (5, 12)]),
        ("mean", {0: torch.export.Dim("N")}, [(2, 12), (5, 12)]),
        ("mean", dict.fromkeys((0, 2, 3), torch.export.Dim.AUTO), [(2, 8), (2, 21)]),
    ],
    ids=["number", "number and mean", "size"],
)
def test_exports_with_any_number_and_size_of_images(pool: Any, free: Any, sizes: Any) -> None:
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    model = FDRLModel(backbone, FDRLHead(8, 7, **SMALL), pool)
    program = torch.export.export(model, (images(3),), dynamic_shapes=(free,))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for number, side in sizes:
        x = images(number, side)
        torch.testing.assert_close(loaded(x).logits, model(x).logits)


@pytest.mark.slow
@pytest.mark.compile
@pytest.mark.timeout(600)
def test_compiles_with_inductor(fresh_compiler: None) -> None:
    model = attach_head(Net(), 7, **SMALL).eval()
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    for number in (4, 7):
        x = images(number)
        torch.testing.assert_close(compiled(x).logits, model(x).logits)


def test_traces_to_one_graph_in_training(fresh_compiler: None) -> None:
    model = attach_head(Net(), 7, **SMALL).train()
    model.backbone.dropout.p = 0.0  # type: ignore[union-attr]
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    x = images()
    torch.testing.assert_close(compiled(x).logits, model(x).logits)
