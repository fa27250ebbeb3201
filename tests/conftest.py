"""What every test runs under: a hypothesis profile, and torch's settings left as they were."""

import os
from collections.abc import Iterator

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is loaded: processes with a thread each beat threads on arrays this small.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

import strategies

if not torch.cuda.is_available():
    # Triton reads it when a kernel is defined: without a GPU its interpreter runs the kernels.
    os.environ.setdefault("TRITON_INTERPRET", "1")

strategies.register_profiles()
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


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
