"""Each of the backbones that the documentation lists takes a head; none keeps a trace of it.

`docs/backbones.json` holds what was found. After an intended change, write it anew with
`python tests/test_backbones.py`, which needs torchvision, timm and transformers.
"""

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from fdrl_layers import FDRLHead, FDRLModel, attach_head
from fdrl_layers.backbones.building import build_backbone
from fdrl_layers.backbones.pooling import chosen_entry

FOUND = Path(__file__).resolve().parents[1] / "docs" / "backbones.json"
LIBRARIES = {"torchvision": "torchvision", "timm": "timm", "hf": "transformers"}


class Row(NamedTuple):
    """A backbone, what it is built with, and the side of the images that it is tried on."""

    source: str
    options: dict[str, Any]
    side: int = 64


TOKENS = {"img_size": 64, "global_pool": ""}
PATCHES = {"image_size": 32, "patch_size": 8}
TRANSFORMER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
CONVOLUTIONS = {"hidden_sizes": [8, 16, 32, 48], "depths": [1, 1, 1, 1]}
WINDOWS = {"embed_dim": 12, "depths": [1, 1], "num_heads": [2, 2], "window_size": 2}


def plain(library: str, *names: str) -> list[Row]:
    return [Row(f"{library}:{name}", {}) for name in names]


MOBILE = ("mobilenetv3_small_100", "mobilenetv4_conv_small", "ghostnet_100")
ROWS = [
    *plain("torchvision", "resnet18", "convnext_tiny", "mobilenet_v3_small", "vgg11", "swin_t"),
    Row("torchvision:vit_b_16", {"image_size": 32}, 32),
    *plain("torchvision", "squeezenet1_1", "densenet121"),
    *plain("timm", "resnet18"),
    Row("timm:resnet18", {"global_pool": ""}),
    *plain("timm", *MOBILE, "vgg11", "convnext_tiny", "efficientnet_b0"),
    Row("timm:swin_tiny_patch4_window7_224", {"img_size": 64}),
    Row("timm:swin_tiny_patch4_window7_224", TOKENS),
    Row("timm:vit_tiny_patch16_224", {"img_size": 64}),
    Row("timm:vit_tiny_patch16_224", TOKENS),
    Row("hf:resnet", {"embedding_size": 8, **CONVOLUTIONS}),
    Row("hf:convnext", CONVOLUTIONS),
    Row("hf:vit", {**PATCHES, **TRANSFORMER}, 32),
    Row("hf:vit", {**PATCHES, **TRANSFORMER, "add_pooling_layer": False}, 32),
    Row("hf:dinov2", {"image_size": 28, "patch_size": 14, **TRANSFORMER}, 28),
    Row("hf:swin", {"image_size": 32, **WINDOWS}, 32),
]

LARGE = 10_000_000
"""Numbers in a layer of VGG, whose gradient would take longer than all the rest."""


def build(row: Row) -> nn.Module:
    """Build a backbone in training mode, one part of it frozen by hand."""
    module = build_backbone(row.source, row.options).module.train()
    next(module.children()).eval()
    return module


def attach(module: nn.Module, row: Row) -> FDRLModel:
    return attach_head(module, 7, image_size=row.side, latent_dim=16, num_latents=3)


def found(row: Row, model: FDRLModel) -> dict[str, Any]:
    """What there is to know of a row: what the backbone gives, and what becomes of it."""
    images = torch.rand(2, 3, row.side, row.side)
    model.eval()
    with torch.no_grad():
        name, entry = chosen_entry(model.backbone(images), "auto")
        pooled = model.basic_feature(images)
    return {
        "source": row.source,
        "options": row.options,
        "side": row.side,
        "gives": name,
        "shape": list(entry.shape),
        "pool": model.pool,
        "pooled": list(pooled.shape),
        "width": model.head.in_features,
    }


def state(module: nn.Module) -> tuple[list[bool], dict[str, Tensor]]:
    """What a dry run could change: the modes of all parts and the buffers."""
    modes = [part.training for part in module.modules()]
    return modes, {name: buffer.clone() for name, buffer in module.named_buffers()}


@pytest.fixture
def cheap_init(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the largest weights once, from what is fast to draw: VGG-11 has 133 million."""

    def cheaper(plain: Callable[..., Tensor], drawn_again: bool) -> Callable[..., Tensor]:
        def initialize(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            if tensor.numel() < LARGE:
                return plain(tensor, *args, **kwargs)
            return tensor if drawn_again else tensor.data.uniform_(-0.02, 0.02)

        return initialize

    for name in ("kaiming_uniform_", "kaiming_normal_", "normal_"):
        # The first is called by the layer, before the model draws anew.
        cheap = cheaper(getattr(nn.init, name), name == "kaiming_uniform_")
        monkeypatch.setattr(nn.init, name, cheap)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.source}-{len(row.options)}")
def test_takes_a_head(row: Row, cheap_init: None) -> None:
    pytest.importorskip(LIBRARIES[row.source.partition(":")[0]])
    module = build(row)
    before = state(module)
    torch.manual_seed(0)
    model = attach(module, row)
    assert model.backbone is module

    after = torch.get_rng_state()
    torch.manual_seed(0)
    FDRLHead(model.head.in_features, 7, latent_dim=16, num_latents=3)
    assert torch.equal(after, torch.get_rng_state())
    torch.testing.assert_close(state(module), before, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in module.parameters())
    assert not any(part._forward_hooks for part in module.modules())

    check_gradients(model, row)
    assert found(row, model) in json.loads(FOUND.read_text())["rows"]


def check_gradients(model: FDRLModel, row: Row) -> None:
    images = torch.rand(2, 3, row.side, row.side)
    output = model.train()(images)
    assert output.logits.shape == (2, 7)
    used = [p for p in model.parameters() if p.requires_grad and p.numel() < LARGE]
    loss = output.logits.square().sum() + output.intra_weights.sum()
    gradients = torch.autograd.grad(loss, used, allow_unused=True)
    assert all(g.isfinite().all() for g in gradients if g is not None)
    of_head = gradients[-len(list(model.head.parameters())) :]
    assert all(g is not None for g in of_head)
    first = next(g for g in gradients if g is not None)
    assert first.abs().max() > 0


def test_the_table_holds_no_more_than_the_rows() -> None:
    listed = [(row["source"], row["options"]) for row in json.loads(FOUND.read_text())["rows"]]
    assert listed == [(row.source, row.options) for row in ROWS]


def write() -> None:
    versions = {name: version(name).partition("+")[0] for name in LIBRARIES.values()}
    rows = [found(row, attach(build(row), row)) for row in ROWS]
    FOUND.write_text(json.dumps({"versions": versions, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    write()
