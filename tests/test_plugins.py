"""The tests run with whatever plug-ins of pytest somebody has, or has not."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import devices

SPEAKING = """
import warnings

def pytest_configure(config):
    warnings.warn(DeprecationWarning("of a plug-in, about itself"))
"""


def test_plug_ins_that_warn_or_are_missing_stop_nothing(tmp_path: Path) -> None:
    (tmp_path / "pytest_speaking.py").write_text(SPEAKING)
    missing = [f"-pno:{name}" for name in ("timeout", "xdist", "xdist.looponfail", "pytest_cov")]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(devices.ROOT)])
    command = [sys.executable, "-m", "pytest", "-q", "-ppytest_speaking", "-pno:cacheprovider"]
    # A module with marks of pytest-timeout, and a test that takes no time.
    command += [*missing, "tests/test_head.py", "-k", "test_without_classes"]
    done = subprocess.run(
        command, cwd=devices.ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_workers_share_a_gpu_with_room_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "HAS_CUDA", False)
    assert devices.with_room(64) == 64
    monkeypatch.setattr(devices, "HAS_CUDA", True)
    for memory, workers in ((8 * 2**30, 4), (2**30, 1), (80 * 2**30, 16)):
        properties = SimpleNamespace(total_memory=memory)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _, found=properties: found)
        assert devices.with_room(16) == workers
