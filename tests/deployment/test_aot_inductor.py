"""A whole model compiled ahead of time into a package, for a process without Python's compiler."""

import shutil
from pathlib import Path

import pytest
import torch

pytest.importorskip("torchvision")

from deploying import check_batches, images, named, whole_model
from fdrl_layers import FDRLOutput

pytestmark = [pytest.mark.slow, pytest.mark.compile, pytest.mark.timeout(600)]


@pytest.mark.skipif(shutil.which("g++") is None, reason="AOTInductor wants a C++ compiler")
@pytest.mark.skipif(not hasattr(torch._inductor, "aoti_load_package"), reason="no packages yet")
@pytest.mark.filterwarnings("ignore")
def test_a_package_computes_the_same(tmp_path: Path) -> None:
    model = whole_model()
    batch = torch.export.Dim("N", max=1024)
    program = torch.export.export(model, (images(4),), dynamic_shapes=({0: batch},))
    package = str(tmp_path / "model.pt2")
    torch._inductor.aoti_compile_and_package(program, package_path=package)
    loaded = torch._inductor.aoti_load_package(package)
    assert isinstance(loaded(images(2)), FDRLOutput)
    check_batches("AOTInductor", lambda x: named(loaded(x)), model, images)
