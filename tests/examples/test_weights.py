"""Files of ResNet-18 weights as people have them, and those that must not be taken for one."""

import pickle
import shutil
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

import fer_rafdb
from fer.model import build as model
from fer.model.build import make_model
from fer.model.weights import SEQUENTIAL_LAYERS, fill_backbone, read_tensors
from fer.options import Options
from small_runs import assert_same, refuses

Capture = pytest.CaptureFixture[str]
Tensors = dict[str, Tensor]
OPTIONS = Options(image_size=32)
COUNTERS = "num_batches"
"""In the names of 20 of the 120 tensors, `num_batches_tracked` of each batch normalization."""


def bare() -> nn.Module:
    """Return a ResNet-18 as every run begins with, its classifier taken off."""
    backbone: nn.Module = resnet18()
    backbone.fc = nn.Identity()
    return backbone


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.pth"


@pytest.fixture(scope="module")
def trained() -> Tensors:
    """Weights and statistics that no initialization gives, with a classifier of 1,000 people."""
    generator = torch.Generator().manual_seed(0)
    found = resnet18().state_dict()
    for value in found.values():
        value.copy_(torch.randn(value.shape, generator=generator) if value.ndim else 17)
    return dict(found)


def without(word: str, tensors: Tensors) -> Tensors:
    return {name: value for name, value in tensors.items() if word not in name}


def prefixed(tensors: Tensors, prefix: str) -> Tensors:
    return {f"{prefix}{name}": value for name, value in tensors.items()}


def in_sequence(tensors: Tensors) -> Tensors:
    """Number the layers as `nn.Sequential(*resnet.children())` does."""
    cut = {}
    for name, value in without("fc.", tensors).items():
        layer, rest = name.split(".", 1)
        cut[f"features.{SEQUENTIAL_LAYERS.index(layer)}.{rest}"] = value
    return cut


def ran(tensors: Tensors) -> dict[str, Any]:
    """Lay weights out as RAN and SCN have them: of several processes, with heads of their own."""
    heads = {"feature.weight": torch.zeros(512, 512), "feature.bias": torch.zeros(512)}
    held = without(COUNTERS, without("fc.bias", tensors)) | heads
    return {"epoch": 60, "state_dict": OrderedDict(prefixed(held, "module.")), "best_prec1": 91.5}


FILES: dict[str, tuple[Any, str]] = {
    "MS-Celeb-1M's, as DACL has it": (lambda t: {"state_dict": t}, "fc.bias, fc.weight"),
    "MS-Celeb-1M's, as RAN has it": (
        ran,
        "module.fc.weight, module.feature.bias, module.feature.weight",
    ),
    "torchvision's": (lambda t: OrderedDict(t), "fc.bias, fc.weight"),
    "torchvision's from before the counters": (partial(without, COUNTERS), "fc.bias, fc.weight"),
    "a backbone of some wrapper": (
        lambda t: {"model": prefixed(t, "module.backbone.")},
        "module.backbone.fc.bias, module.backbone.fc.weight",
    ),
    "numbered": (lambda t: {"model_state_dict": prefixed(in_sequence(t), "module.")}, ""),
}


@pytest.mark.parametrize(("layout", "unused"), FILES.values(), ids=FILES)
def test_every_tensor_is_that_of_the_file(
    path: Path, trained: Tensors, layout: Any, unused: str
) -> None:
    torch.save(layout(trained), path)
    backbone = bare()
    matched = fill_backbone(backbone, path)
    got = backbone.state_dict()
    if matched.num_filled < len(got):
        got = without(COUNTERS, got)
    assert str(matched) == f"{len(got)} tensors filled" + f"; not used: {unused}" * bool(unused)
    assert_same(got, {name: trained[name] for name in got})


def test_files_of_the_format_before_zip_are_read(path: Path, trained: Tensors) -> None:
    torch.save({"state_dict": trained}, path, _use_new_zipfile_serialization=False)
    assert read_tensors(path).keys() == trained.keys()


def test_safetensors_are_read(path: Path, trained: Tensors) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    path = path.with_suffix(".safetensors")
    safetensors.save_file(prefixed(trained, "backbone."), path)
    backbone = bare()
    assert fill_backbone(backbone, path).num_filled == 120
    assert torch.equal(backbone.state_dict()["conv1.weight"], trained["conv1.weight"])
    path.write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=r"weights\.safetensors cannot be read: "):
        read_tensors(path)


@pytest.mark.parametrize("averaged", [False, True])
def test_a_checkpoint_of_ours_gives_the_averaged_backbone_first(path: Path, averaged: bool) -> None:
    ours, ema = make_model(OPTIONS, 7), make_model(OPTIONS, 7)
    state = {"classes": ["a"] * 7, "ema": ema.state_dict() if averaged else None}
    criterion = {"compactness.centers.value": torch.zeros(7, 9, 128)}
    torch.save(state | {"model": ours.state_dict(), "criterion": criterion}, path)
    backbone = bare()
    matched = fill_backbone(backbone, path)
    assert matched.num_filled == 120
    assert all(name.startswith("1.") for name in matched.unused)
    assert str(matched).endswith(f"not used: {', '.join(matched.unused[:4])}, ...")
    assert_same(backbone.state_dict(), (ema if averaged else ours)[0].state_dict())


def test_a_part_of_a_backbone_is_not_enough(path: Path, trained: Tensors) -> None:
    backbone = bare()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    lacking = without("layer4.1.bn2.running_var", trained)
    gray = trained | {"conv1.weight": torch.zeros(64, 1, 7, 7)}
    others = {"a.weight": torch.zeros(1), "b.weight": torch.zeros(1)}
    twice = trained | {"module.bn1.bias": trained["bn1.bias"]}
    bad = {
        r"of 120 tensors 1 are missing, layer4\.1\.bn2\.running_var first": lacking,
        r"conv1\.weight is \(64, 1, 7, 7\) and not \(64, 3, 7, 7\)": gray,
        r"100 are missing, conv1\.weight first\. It holds a\.weight, b\.weight$": others,
        r"(module\.bn1\.bias and |and module\.)bn1\.bias fill the same tensor": twice,
    }
    for match, tensors in bad.items():
        torch.save(tensors, path)
        with pytest.raises(ValueError, match=rf"weights\.pth.*({match})"):
            fill_backbone(backbone, path)
    assert_same(backbone.state_dict(), before)


class Thing:
    """What a pickle that is no dictionary of tensors may hold."""


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (Thing(), r"does not hold tensors and plain values alone\. If you trust it"),
        ({"state_dict": {"a": Thing()}}, r"does not hold tensors and plain values alone"),
        ({"state_dict": {"a": np.ones(3)}}, r"does not hold tensors and plain values alone"),
        ({"state_dict": {}, "epoch": 3}, r"holds no dictionary of tensors"),
        ([torch.zeros(1)], r"holds no dictionary of tensors"),
        ({0: torch.zeros(1)}, r"holds no dictionary of tensors"),
    ],
)
def test_other_contents_are_refused(path: Path, content: Any, match: str) -> None:
    torch.save(content, path)
    with pytest.raises(ValueError, match=rf"weights\.pth {match}"):
        read_tensors(path)


def test_files_that_are_no_checkpoints_are_refused(path: Path, trained: Tensors) -> None:
    torch.save(trained, path)
    whole, junk = path.read_bytes(), np.random.default_rng(0).bytes(200)
    parts = [whole[:1000], whole[: len(whole) // 2]]
    match = r"weights\.pth (cannot be read: .|does not hold|holds)"
    pickled = [b"\x80\x02}q\x00.", pickle.dumps(np.ones(3))]
    for content in (b"", b"no weights", *parts, *pickled, junk, b"PK\x03\x04" + junk):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=match):
            read_tensors(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no file .*weights\.pth of weights"):
        read_tensors(path)


def test_a_run_says_what_the_weights_gave_and_has_the_head_as_before(
    path: Path, trained: Tensors, capsys: Capture
) -> None:
    torch.save({"state_dict": trained}, path)
    options = Options(backbone_weights=str(path))
    model.check_weights(options)
    assert capsys.readouterr().out == f"{path}: 120 tensors filled; not used: fc.bias, fc.weight\n"
    torch.manual_seed(0)
    made = make_model(options, 7)
    conv = "layer3.0.conv1.weight"
    assert torch.equal(made[0].state_dict()[conv], trained[conv])
    assert made[0](torch.zeros(2, 3, 32, 32)).shape == (2, 512)
    torch.manual_seed(0)
    assert_same(made[1].state_dict(), make_model(OPTIONS, 7)[1].state_dict())
    model.check_weights(OPTIONS)
    assert capsys.readouterr().out == ""


def test_a_run_goes_on_without_the_file_that_it_started_from(
    path: Path, tmp_path: Path, trained: Tensors, capsys: Capture
) -> None:
    torch.save(trained, path)
    quick = ["--faces", "32", "--batch-size", "16", "--image-size", "16", "--epochs", "1"]
    quick += ["--device", "cpu", "--backbone-weights", str(path), "--out"]
    folder, other = tmp_path / "run", tmp_path / "other"
    fer_rafdb.main(["--head", "linear", *quick, str(folder)])
    assert f"{path}: 120 tensors filled; not used: fc.bias" in capsys.readouterr().out
    path.unlink()
    summary = fer_rafdb.main(["--resume", str(folder)])
    assert summary["options"]["backbone_weights"] == str(path)
    refuses(r"there is no file .*weights\.pth of weights", *quick, str(other))
    assert not other.exists()
    shutil.rmtree(folder)
