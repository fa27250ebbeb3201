"""The training loops of examples/loops run on random images, and keep the centers of the loss."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("torchvision")

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "loops"
NAMES = {"plain", "graphed", "lightning_loop", "accelerate_loop"}


@pytest.fixture(autouse=True)
def _loops(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(FOLDER))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    for name in NAMES:
        sys.modules.pop(name, None)


def loop(name: str) -> Any:
    """A script, imported as its neighbours import it."""
    return importlib.import_module(name)


def test_every_loop_is_tried() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == NAMES


def test_plain(tmp_path: Path, device: str) -> None:
    history = loop("plain").train(tmp_path, device)
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    assert bool(state["criterion"]["compactness.centers.seen"].all())
    assert state["average"]["n_averaged"] == 4
    assert len(history) == 2
    assert all(torch.tensor(history).isfinite())
    # In float16 the first steps may be left out, until the scale fits.
    assert device == "cuda" or history[1] < history[0]


@pytest.mark.parametrize("way", ["train_whole", "train_parts"])
def test_graphed(way: str, device: str) -> None:
    history = torch.tensor(getattr(loop("graphed"), way)(device))
    assert len(history) == 12
    assert history.isfinite().all()
    assert history.unique().numel() > 6


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_lightning(tmp_path: Path, device: str) -> None:
    lightning = pytest.importorskip("lightning")
    assert lightning.__version__ not in ("2.6.2", "2.6.3"), "a malicious release"
    module = loop("lightning_loop").train(str(tmp_path), "gpu" if device == "cuda" else "cpu")
    assert bool(module.criterion.compactness.centers.seen.all())
    checkpoint = torch.load(tmp_path / "best.ckpt", weights_only=False)["state_dict"]
    assert bool(checkpoint["criterion.compactness.centers.seen"].all())
    assert "network.1.decomposition.weight" in checkpoint


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_accelerate(tmp_path: Path, device: str) -> None:
    state = pytest.importorskip("accelerate.state")
    # It keeps the first device of a process.
    state.AcceleratorState._reset_state(reset_partial_state=True)
    history = loop("accelerate_loop").train(str(tmp_path), cpu=device == "cpu")
    assert all(torch.tensor(history).isfinite())
    centers = torch.load(tmp_path / "custom_checkpoint_0.pkl", weights_only=True)
    assert bool(centers["compactness.centers.seen"].all())
    assert centers["compactness.centers.value"].any()
