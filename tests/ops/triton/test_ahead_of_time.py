"""Every kernel compiles for GPUs that are not there, and fits them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from ahead_of_time import Case, Resources, compile_all
from fdrl_layers.ops.triton import plans

KERNELS = "fdrl_layers.ops.triton."
SHARED = {80: 163 * 1024, 90: 227 * 1024}
"""Shared memory that a program may have, by compute capability, from NVIDIA's programming guide."""

KINDS = (("fp32", "ieee"), ("fp32", "tf32"), ("bf16", "ieee"), ("fp16", "ieee"))
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PAPER = {"M": 9, "D": 128}
TILE = {**PAPER, "MP": 16, "TURNS": 4, "KB": 8}
LOSS = {**PAPER, "MP": 16, "KP": 16}


def types(names: str, kind: str, **others: str) -> dict[str, str]:
    """Pointers to `kind` for the arguments named, and the types of others."""
    return {f"{name}_ptr": f"*{kind}" for name in names.split()} | others


def wide(names: str) -> dict[str, str]:
    return types(names, "fp32")


def has(names: str) -> dict[str, bool]:
    return {f"HAS_{name}": True for name in names.split()}


def branch_cases(kind: str, precision: str, capability: int, batch: int) -> Iterator[Case]:
    size = plans.blocks(batch, PAPER["D"], DTYPES[kind])
    blocks: dict[str, Any] = {**PAPER, "BN": size.samples, "BK": size.terms, "SHARE": True}
    blocks["PRECISION"] = precision
    relations = "intra_weight intra_bias inter_weight latents product"
    yield Case(
        KERNELS + "branch",
        "branch_forward",
        types(f"input weight bias {relations}", kind, N="i32", P="i32") | wide("sums"),
        blocks | {"DECOMPOSE": True, "KEEP": True} | has("BIAS INTRA_BIAS"),
        capability,
        size.warps,
    )
    yield Case(
        KERNELS + "branch",
        "branch_backward",
        types(f"{relations} dp grad_latents entering dz", kind, N="i32", delta="fp32")
        | wide("intra slope dy"),
        blocks | has("BIAS GRAD"),
        capability,
        size.warps,
    )


def relation_cases(
    kind: str, capability: int, batch: int, reduction: str = "share"
) -> Iterator[Case]:
    numbers = {"N": "i32", "K": "i32", "delta": "fp32"}
    share = plans.lanes(batch, PAPER["M"], PAPER["D"], DTYPES[kind])
    tile = {**TILE, "SUB": share.samples, "VECTOR": share.vector, "REDUCTION": reduction}
    yield Case(
        KERNELS + "relation",
        "relation_forward",
        types("latents product inter_bias classifier classifier_bias logits embedding", kind)
        | wide("sums intra inter distances")
        | numbers,
        tile | has("BIAS CLASSIFIER CLASSIFIER_BIAS"),
        capability,
        share.warps,
    )
    yield Case(
        KERNELS + "relation",
        "relation_backward",
        types("grad_logits grad_embedding latents product inter_bias classifier dp y", kind)
        | wide("grad_intra grad_inter intra distances slope dy")
        | numbers,
        tile | has("BIAS GRAD_LOGITS GRAD_EMBEDDING GRAD_INTRA GRAD_INTER"),
        capability,
        share.warps,
    )


def parameter_cases(kind: str, precision: str, capability: int) -> Iterator[Case]:
    layers = ("decomposition", "intra", "inter", "classifier")
    parameters = " ".join(f"{layer}_weight {layer}_bias" for layer in layers)
    yield Case(
        KERNELS + "parameters",
        "parameter_gradients",
        types(f"input dz latents entering dp grad_logits y {parameters}", kind)
        | {"N": "i32", "P": "i32", "K": "i32"},
        {**PAPER, "BN": 16 if kind == "fp32" else 64, "BI": 64, "BJ": 64, "PRECISION": precision}
        | has("DECOMPOSITION_BIAS INTRA_BIAS INTER_BIAS CLASSIFIER_BIAS"),
        capability,
        8 if kind == "fp32" else 4,
    )


def loss_cases(kind: str, capability: int) -> Iterator[Case]:
    number, weights = "fp32", ("compactness", "balance", "distribution")
    lambdas = {f"lambda_{name}": number for name in weights}
    terms = f"total classification {' '.join(weights)}"
    common = {"target_ptr": "*i64", "N": "i32", "K": "i32", "ignore_index": "i32"}
    yield Case(
        KERNELS + "sums",
        "partial_sums",
        types("logits latents", kind)
        | wide("intra latent_centers class_centers weight parts")
        | common
        | {"width": "i32", "span": "i32", "smoothing": number},
        {**LOSS, "ROWS": 16, "HAS_WEIGHT": True},
        capability,
    )
    yield Case(
        KERNELS + "centers",
        "move_centers",
        wide("parts latent_centers class_centers state")
        | {"latent_seen_ptr": "*i1", "class_seen_ptr": "*i1", "corrections_ptr": "*fp64"}
        | {"width": "i32", "K": "i32", "programs": "i32", "rate": number},
        {**LOSS, "ALPHA": True},
        capability,
    )
    yield Case(
        KERNELS + "centers",
        "join_terms",
        wide("parts terms state")
        | {"class_seen_ptr": "*i1", "corrections_ptr": "*fp64"}
        | {"width": "i32", "K": "i32", "programs": "i32"}
        | lambdas,
        LOSS,
        capability,
    )
    yield Case(
        KERNELS + "terms",
        "term_gradients",
        types("logits latents grad_logits grad_latents", kind)
        | wide(f"{terms} intra weight state grad_intra")
        | common
        | lambdas
        | {"smoothing": number},
        {**LOSS, "ROWS": 16} | has("TOTAL CE COMPACTNESS BALANCE DISTRIBUTION WEIGHT"),
        capability,
    )


def cases() -> Iterator[Case]:
    for capability in SHARED:
        for kind, precision in KINDS:
            for batch in (64, 4096):
                yield from branch_cases(kind, precision, capability, batch)
            yield from parameter_cases(kind, precision, capability)
            if precision == "ieee":
                yield from relation_cases(kind, capability, 4096)
                if capability == 90 and kind == "bf16":
                    yield from relation_cases(kind, capability, 64)
                yield from loss_cases(kind, capability)


@pytest.fixture(scope="module")
def compiled() -> list[tuple[Case, Resources]]:
    found = list(cases())
    return list(zip(found, compile_all(found), strict=True))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_kernel_spills_and_all_fit(compiled: list[tuple[Case, Resources]]) -> None:
    for case, resources in compiled:
        name = case.name
        assert resources.spilled_bytes == 0, f"{name}: {resources}"
        assert 0 < resources.registers <= 255, f"{name}: {resources}"
        assert resources.shared_bytes <= SHARED[case.capability], f"{name}: {resources}"


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
    found = list(relation_cases("bf16", 90, batch, "sum"))
    for case, resources in zip(found, compile_all(found), strict=True):
        spent = resources.instructions * case.warps / case.constants["SUB"]
        # Other versions of Triton may take a little more.
        assert spent <= 1.05 * WARP_INSTRUCTIONS[batch, case.kernel], f"{case.name}: {resources}"
        assert resources.barriers <= 3, f"{case.name}: {resources}"
        assert resources.spilled_bytes == 0, f"{case.name}: {resources}"


def test_every_kernel_has_a_case() -> None:
    folder = Path(plans.__file__).parent
    launched: set[str] = set()
    for file in folder.glob("*.py"):
        launched |= set(re.findall(r"^ +(\w+)\[.*\]\($", file.read_text(), re.MULTILINE))
    assert launched == {case.kernel for case in cases()}


@pytest.mark.slow
def test_the_check_can_fail() -> None:
    # Sums of 256 samples by 128 outputs do not fit the registers of four warps.
    case = next(branch_cases("bf16", "ieee", 80, 64))
    large = Case(
        case.module, case.kernel, case.types, case.constants | {"BN": 256}, case.capability, 4
    )
    (resources,) = compile_all([large])
    assert resources.spilled_bytes > 0
