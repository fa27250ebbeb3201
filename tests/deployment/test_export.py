"""A whole model as an exported program, through a file."""

from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("torchvision")

from deploying import check_batches, images, named
from fdrl_layers import FDRLOutput


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "not strict"])
def test_an_exported_program_computes_the_same(
    model: nn.Sequential, tmp_path: Path, strict: bool
) -> None:
    batch = torch.export.Dim("N", max=1024)
    program = torch.export.export(model, (images(4),), dynamic_shapes=({0: batch},), strict=strict)
    torch.export.save(program, tmp_path / "model.pt2")
    if strict and torch.__version__ < (2, 7):  # type: ignore[operator]
        pytest.skip("torch 2.6 cannot read back what its strict export of a ResNet wrote")
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    assert isinstance(loaded(images(2)), FDRLOutput)
    check_batches("torch.export", lambda x: named(loaded(x)), model, images)
