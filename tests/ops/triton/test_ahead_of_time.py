"""Every kernel compiles for GPUs that are not there, and fits them."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from triton.runtime import interpreter, jit

from ahead_of_time import Case, Resources, compile_all
from fdrl_layers import FDRLHead, FDRLLoss
from fdrl_layers.ops import backend
from fdrl_layers.ops.reference.head import Reduction
from fdrl_layers.ops.triton import head

SHARED = {80: 163 * 1024, 90: 227 * 1024}
"""Shared memory that a program may have, by compute capability, from NVIDIA's programming guide."""

SINGLE, BFLOAT, HALF = torch.float32, torch.bfloat16, torch.float16
KINDS = ((SINGLE, "ieee"), (SINGLE, "tf32"), (BFLOAT, "ieee"), (HALF, "ieee"))
NAMES: dict[Any, str] = {SINGLE: "*fp32", BFLOAT: "*bf16", HALF: "*fp16", torch.float64: "*fp64"}
NAMES |= {torch.int64: "*i64", torch.bool: "*i1", int: "i32", float: "fp32"}


def launched(
    dtype: torch.dtype, precision: str, capability: int, batch: int, reduction: Reduction = "share"
) -> dict[str, Case]:
    """What training launches at the paper's sizes, with all its parts, by name; nothing runs."""
    found: dict[str, Case] = {}

    def launch(kernel: Any, grid: object) -> Callable[..., None]:
        def collect(*arguments: Any, num_warps: int, **options: Any) -> None:
            given = dict(zip(kernel.arg_names, arguments, strict=False)) | options
            constants = {name: given.pop(name) for name in kernel.fn.__annotations__}
            types = {k: NAMES[getattr(v, "dtype", type(v))] for k, v in given.items()}
            names = (kernel.fn.__module__, kernel.fn.__name__)
            case = Case(*names, types, constants, capability, num_warps)
            found.setdefault(case.name, case)

        return collect

    options: dict[str, Any] = {"backend": "triton", "device": "meta"}
    with pytest.MonkeyPatch.context() as patch:
        for kind in (jit.JITFunction, interpreter.InterpretedFunction):
            patch.setattr(kind, "__getitem__", launch)
        # As if on a GPU, which nobody asks for.
        patch.setattr(backend, "INTERPRETING", True)
        patch.setattr(head, "precision", lambda dtype: precision)
        criterion = FDRLLoss(7, weight=torch.ones(7, device="meta"), **options)
        for recompute in (False, True):
            model = FDRLHead(
                512, 7, reduction=reduction, recompute=recompute, dtype=dtype, **options
            )
            output = model(torch.empty(batch, 512, device="meta", dtype=dtype))
            terms = criterion(output, torch.empty(batch, device="meta", dtype=torch.int64))
            every = [*vars(output).values(), *vars(terms).values()]
            torch.autograd.backward(every, [torch.empty_like(each) for each in every])
    return found


def every_case() -> dict[str, Case]:
    found: dict[str, Case] = {}
    for capability in SHARED:
        for dtype, precision in KINDS:
            for batch in (64, 4096):
                found |= launched(dtype, precision, capability, batch)
    return found


def compiled(cases: dict[str, Case]) -> list[tuple[Case, Resources]]:
    return list(zip(cases.values(), compile_all(list(cases.values())), strict=True))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_kernel_spills_and_all_fit() -> None:
    for case, resources in compiled(every_case()):
        said = f"{case.name}: {resources}"
        assert resources.spilled_bytes == 0, said
        assert 0 < resources.registers <= 255, said
        assert resources.shared_bytes <= SHARED[case.capability], said


WARP_INSTRUCTIONS = {
    (4096, "relation_forward"): 1264,
    (4096, "relation_backward"): 1856,
    (64, "relation_forward"): 1750,
    (64, "relation_backward"): 2450,
}
"""Of the relations a sample, bfloat16 on compute capability 9.0, with Triton 3.8; nothing loops but
over classes. With four warps a sample, and sums across them, it was 10,400 and 11,800."""


@pytest.mark.slow
@pytest.mark.parametrize("batch", [64, 4096])
def test_relations_take_few_instructions_and_do_not_wait(batch: int) -> None:
    cases = launched(BFLOAT, "ieee", 90, batch, "sum")
    relations = {k: case for k, case in cases.items() if (batch, case.kernel) in WARP_INSTRUCTIONS}
    assert len(relations) == 2
    for case, resources in compiled(relations):
        spent = resources.instructions * case.warps / case.constants["SUB"]
        said = f"{case.name}: {resources}"
        # Other versions of Triton may take a little more.
        assert spent <= 1.05 * WARP_INSTRUCTIONS[batch, case.kernel], said
        assert resources.barriers <= 3, said
        assert resources.spilled_bytes == 0, said


def test_every_kernel_has_a_case() -> None:
    sources = [file.read_text() for file in Path(head.__file__).parent.glob("*.py")]
    kernels = {name for text in sources for name in re.findall(r"^ +(\w+)\[.*\]\($", text, re.M)}
    assert kernels == {case.kernel for case in launched(SINGLE, "ieee", 80, 64).values()}


@pytest.mark.slow
def test_the_check_can_fail() -> None:
    # Sums of 256 samples by 128 outputs do not fit the registers of four warps.
    case = next(iter(launched(BFLOAT, "ieee", 80, 64).values()))
    assert case.kernel == "branch_forward"
    large = replace(case, constants=case.constants | {"BN": 256}, warps=4)
    (resources,) = compile_all([large])
    assert resources.spilled_bytes > 0
