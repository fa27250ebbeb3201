"""The devices that tests run on. What runs on a GPU is marked `cuda`.

`conftest.py` imports this before anything that defines a kernel.
"""

import os

import pytest
import torch

HAS_CUDA = torch.cuda.is_available()

if not HAS_CUDA:
    # Triton reads it when a kernel is defined: without a GPU its interpreter runs the kernels.
    os.environ.setdefault("TRITON_INTERPRET", "1")

OF_KERNELS = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
"""Where Triton's kernels run: on the GPU, or in the interpreter."""

KERNELS = [pytest.mark.cuda] if OF_KERNELS == "cuda" else []
"""Marks for modules whose tests run on the device of the kernels, as their `pytestmark`."""

BOTH = ["cpu", *([pytest.param("cuda", marks=pytest.mark.cuda)] if HAS_CUDA else [])]
"""Parameters of the `device` fixture."""

WITHOUT_CUDA = "needs a GPU that torch.cuda can use"
