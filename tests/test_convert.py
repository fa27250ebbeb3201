"""Checkpoints in the public per-branch layout give what that layout gives."""

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from branch_model import NUM_LATENTS, BranchModel
from comparing import assert_close
from fdrl_layers import FDRLHead
from fdrl_layers.convert import backbone_from_branches, head_from_branches, to_branches
from strategies import Sizes, normal, parameters_for

models = pytest.importorskip("torchvision.models")

assert_exactly = partial(torch.testing.assert_close, rtol=0, atol=0)
OF = Sizes(N=4, P=5, M=3, D=6, K=2)


def head_for(of: Sizes = OF, **options: Any) -> FDRLHead:
    head = FDRLHead(of.P, of.K, latent_dim=of.D, num_latents=of.M, dtype=torch.float64, **options)
    head.load_state_dict(parameters_for(of, 0, bias=options.get("bias", True)))
    return head


def branches(**options: Any) -> dict[str, Tensor]:
    return to_branches(head_for(**options))


def resnet18() -> nn.Module:
    """A ResNet-18 whose normalizations have seen data, so that a lost buffer is found out."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = models.resnet18()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.get_buffer("running_mean").normal_(std=0.1)
                module.get_buffer("running_var").uniform_(0.5, 2)
                module.num_batches_tracked = torch.tensor(7)
    return model


def without_fc(backbone: nn.Module) -> dict[str, Tensor]:
    return {k: v for k, v in backbone.state_dict().items() if not k.startswith("fc.")}


@pytest.mark.parametrize("mixes_messages", [True, False], ids=["message", "as printed"])
@pytest.mark.parametrize("regime", ["new", "trained"])
def test_gives_what_the_layout_gives(tmp_path: Path, mixes_messages: bool, regime: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        theirs = BranchModel(resnet18(), 512, 7, delta=0.3, mixes_messages=mixes_messages).eval()
    if regime == "trained":
        # Else each Intra-W is about 64, every tanh is 1, and no Inter-W would be put to the test.
        with torch.no_grad():
            for gate in theirs.frn.intra_rm.children():
                gate.get_parameter("0.bias").sub_(7)
    torch.save({"epoch": 40, "state_dict": theirs.state_dict()}, tmp_path / "best.pth")

    checkpoint = torch.load(tmp_path / "best.pth", weights_only=True)
    backbone = models.resnet18()
    backbone.fc = nn.Identity()
    backbone.load_state_dict(backbone_from_branches(checkpoint))
    # As in the layout of the code, or as printed: either way without a word where it is default.
    option: dict[str, Any] = {} if mixes_messages else {"self_feature": "intra"}
    ours = nn.Sequential(backbone, head_from_branches(checkpoint, delta=0.3, **option)).eval()

    images = normal(3, 3, 32, 32, seed=2, dtype=torch.float32)
    with torch.no_grad():
        expected, found = theirs(images), ours(images)
    # The row of float32: both take the same sums, in another order.
    assert_close("logits", found.logits, expected)
    if regime == "trained":
        others = found.inter_weights[:, ~torch.eye(NUM_LATENTS, dtype=torch.bool)]
        assert others.min() < 0.9


def test_the_variants_are_not_the_same_network() -> None:
    # So that the test above tells one from the other.
    state = branches()
    x = normal(OF.N, OF.P, seed=1)
    message, printed = (head_from_branches(state, self_feature=f) for f in ("message", "intra"))
    assert (message(x).embedding - printed(x).embedding).abs().max() > 0.1
    assert message.reconstruction.self_feature == "message"
    assert torch.equal(printed(x).embedding, head_for()(x).embedding)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("num_latents", [1, 2, 12])
def test_there_and_back(num_latents: int, bias: bool) -> None:
    head = head_for(replace(OF, M=num_latents), bias=bias)
    state = to_branches(head, classifier="epn.fc")
    assert len(state) == (3 * num_latents + 1) * (1 + bias)
    again = head_from_branches(dict(sorted(state.items())))  # fc10 stands before fc2
    assert_exactly(again.state_dict(), head.state_dict())
    assert_exactly(to_branches(again, classifier="epn.fc"), state)


def test_the_backbone_there_and_back() -> None:
    backbone = resnet18()
    backbone.fc = nn.Identity()
    state = to_branches(head_for(), backbone.state_dict())
    children = nn.Sequential(*list(backbone.children())[:-1])
    expected = {f"backbone.{key}": value for key, value in children.state_dict().items()}
    assert_exactly({k: v for k, v in state.items() if k.startswith("backbone.")}, expected)
    assert_exactly(backbone_from_branches(state), backbone.state_dict())
    head_from_branches(state)  # which leaves the backbone's keys alone


def renamed(pattern: str, new: Callable[[re.Match[str]], str]) -> dict[str, Tensor]:
    return {re.sub(pattern, new, key): value for key, value in branches().items()}


@pytest.mark.parametrize(
    "checkpoint",
    [
        {"state_dict": branches(), "epoch": 3},
        {"model": branches(), "optimizer": {}},
        {"model_state_dict": branches()},
        {"state_dict": {f"module.{key}": value for key, value in branches().items()}},
        {f"module.{key}": value for key, value in branches().items()},
        renamed(r"(?<=_fc)\d", lambda match: str(int(match[0]) + 1)),
        renamed(r"^epn", lambda match: "epn.0"),
        dict(reversed(branches().items())),
    ],
    ids=lambda checkpoint: next(iter(checkpoint)),
)
def test_takes_checkpoints_as_people_have_them(checkpoint: dict[str, Any]) -> None:
    assert_exactly(head_from_branches(checkpoint).state_dict(), head_for().state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_keeps_the_type_and_shares_no_memory(dtype: torch.dtype) -> None:
    state = {key: value.to(dtype) for key, value in branches().items()}
    before = copy.deepcopy(state)
    generator = torch.get_rng_state()
    head = head_from_branches(state)
    assert torch.equal(torch.get_rng_state(), generator)
    for parameter in head.parameters():
        found = (parameter.dtype, parameter.device.type, parameter.requires_grad)
        assert found == (dtype, "cpu", True)
        parameter.data.zero_()
    assert_exactly(state, before)
    written = to_branches(head)
    for value in written.values():
        value.fill_(1)
    assert not any(parameter.any() for parameter in head.parameters())


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in branches().items() if name != key}


def also(key: str, value: Any = None) -> dict[str, Any]:
    return branches() | {key: torch.ones(2) if value is None else value}


INTRA, INTER = "frn.intra_rm.intra_fc", "frn.inter_rm.inter_fc"


@pytest.mark.parametrize(
    ("checkpoint", "error", "match"),
    [
        ([], TypeError, "`checkpoint` must be a mapping, got list"),
        ({0: torch.ones(1)}, TypeError, "`checkpoint` must have text for keys, got 0"),
        ({"fdn.x": 3}, TypeError, r"`checkpoint\['fdn.x'\]` must be a tensor, got int"),
        ({}, ValueError, r"must have keys fdn.fdn_fc0.0.weight and so on, got none"),
        ({"state_dict": {}, "model": {}}, ValueError, "several: state_dict, model"),
        (also("fc.bias"), ValueError, "alone, got fc.bias"),
        (also("module.epn.bias"), ValueError, "got module.epn.bias"),
        (also("fdn.norm"), ValueError, "not of this layout: fdn.norm$"),
        (without("fdn.fdn_fc1.0.weight"), ValueError, "missing: fdn.fdn_fc1.0.weight$"),
        (without("fdn.fdn_fc2.0.weight"), ValueError, "missing: fdn.fdn_fc2.0.weight$"),
        (without("fdn.fdn_fc0.0.bias"), ValueError, "missing: fdn.fdn_fc0.0.bias$"),
        (without(f"{INTER}2.0.weight"), ValueError, f"missing: {INTER}2"),
        (without("epn.weight"), ValueError, "one key epn.weight or epn.*.weight, got none"),
        (without("epn.bias"), ValueError, "missing: epn.bias$"),
        (also("epn.2.weight"), ValueError, r"epn.\*.weight, got epn.weight, epn.2.weight"),
        (also(f"{INTRA}3.0.bias"), ValueError, f"not of this layout: {INTRA}3.0.bias$"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_rejects_keys(checkpoint: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        head_from_branches(checkpoint)


@pytest.mark.parametrize(
    ("key", "bad", "error", "match"),
    [
        ("fdn.fdn_fc1.0.weight", torch.ones(6, 4), ValueError, "D = 6 and P = 5, got (6, 4)"),
        ("fdn.fdn_fc1.0.bias", torch.ones(1), ValueError, "with D = 6, got (1,)"),
        (f"{INTRA}0.0.weight", torch.ones(6, 5), ValueError, "got (6, 5)"),
        ("epn.weight", torch.ones(2, 7), ValueError, "with D = 6, got (2, 7)"),
        ("epn.bias", torch.ones(3), ValueError, "with K = 2, got (3,)"),
        ("epn.bias", torch.ones(2).half(), TypeError, "must be torch.float64, the type of"),
        ("epn.bias", torch.ones(2).long(), TypeError, "must be floating point"),
        ("epn.bias", torch.ones(2, device="meta"), ValueError, "must be on cpu, the device of"),
    ],
)
def test_rejects_tensors(key: str, bad: Tensor, error: type[Exception], match: str) -> None:
    bad = bad.double() if bad.dtype == torch.float32 else bad
    with pytest.raises(error, match=f"`{re.escape(key)}` .*{re.escape(match)}"):
        head_from_branches(also(key, bad))


def test_rejects_a_backbone_that_is_no_resnet18() -> None:
    with pytest.raises(ValueError, match=r"missing: backbone.0.weight, .* and 115 more$"):
        backbone_from_branches(branches())
    state = to_branches(head_for(), without_fc(resnet18()))
    del state["backbone.7.1.bn2.running_var"]
    state["backbone.8.weight"] = torch.ones(1)
    match = r"missing: backbone.7.1.bn2.running_var; not of this layout: backbone.8.weight$"
    with pytest.raises(ValueError, match=match):
        backbone_from_branches(state)
    with pytest.raises(ValueError, match=r"`backbone` .*; not of this layout: fc.weight, fc.bias"):
        to_branches(head_for(), resnet18().state_dict())
    backbone: dict[str, Any] = without_fc(resnet18()) | {"bn1.bias": [0.0]}
    with pytest.raises(TypeError, match=r"`backbone\['bn1.bias'\]` must be a tensor, got list"):
        to_branches(head_for(), backbone)


def test_rejects_what_has_no_place_in_the_layout() -> None:
    head: Any = nn.Linear(2, 2)
    with pytest.raises(TypeError, match="`head` must be an FDRLHead, got Linear"):
        to_branches(head)
    lacking = {
        "reconstruction.intra": FDRLHead(5, 2, intra=False),
        "reconstruction.inter": FDRLHead(5, 2, inter=False),
        "classifier": FDRLHead(5, 0),
    }
    for part, without_it in lacking.items():
        with pytest.raises(ValueError, match=f"`head` must have `{part}`"):
            to_branches(without_it)
    with pytest.raises(ValueError, match=r'`classifier` must be "epn" or "epn\.WORD", got .fc.'):
        to_branches(head_for(), classifier="fc")
