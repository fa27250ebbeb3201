"""What every test runs under: devices, a hypothesis profile, and torch's settings as they were."""

import os
from collections.abc import Generator, Iterator

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is loaded: processes with a thread each beat threads on arrays this small.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# cuBLAS reads it when it starts: without it torch refuses products in deterministic mode on CUDA.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import pytest
import torch
from hypothesis import settings

import devices
import strategies

if not devices.HAS_CUDA:
    devices.pretend_to_have_cuda()

strategies.register_profiles()
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Let `timeout` stand in pyproject.toml where pytest-timeout is missing."""
    if not pluginmanager.hasplugin("timeout"):
        parser.addini("timeout", "seconds that a test may take, with pytest-timeout")


def pytest_configure(config: pytest.Config) -> None:
    """Let the mark of pytest-timeout stand where it is missing."""
    config.addinivalue_line("markers", "timeout(seconds): known to pytest-timeout")


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """Let `-n auto` start no more workers than a GPU has room for."""
    return devices.with_room((yield))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked `cuda` where there is no GPU."""
    if not devices.HAS_CUDA:
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason=devices.WITHOUT_CUDA))


@pytest.fixture(params=[pytest.param(d, marks=devices.marks_of(d)) for d in devices.AVAILABLE])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run a test on the CPU and, marked `cuda`, on a GPU where there is one; both exactly."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield request.param
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Let torch refuse nondeterministic operators, and fill what nobody wrote to with NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before, warn_only=warn_only)


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """Forget compiled code: layers of one class share a `forward`, which may recompile 8 times."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()
