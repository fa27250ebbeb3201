"""Every kernel compiles for GPUs that are not there, and fits them."""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from ahead_of_time import Case, compile_all
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
    case = partial(Case, KERNELS + "branch", capability=capability, warps=size.warps)
    relations = "intra_weight intra_bias inter_weight latents product"
    forward = types(f"input weight bias {relations}", kind, N="i32", P="i32") | wide("sums")
    yield case("branch_forward", forward, blocks | {"KEEP": True} | has("BIAS INTRA_BIAS"))
    products = types(relations, kind, N="i32") | wide("sums")
    yield case("branch_products", products, blocks | has("INTRA_BIAS"))
    backward = types(f"{relations} dp grad_latents entering dz", kind, N="i32", delta="fp32")
    yield case("branch_backward", backward | wide("intra slope dy"), blocks | has("BIAS GRAD"))


def relation_cases(
    kind: str, capability: int, batch: int, reduction: str = "share"
) -> Iterator[Case]:
    numbers = {"N": "i32", "K": "i32", "delta": "fp32"}
    share = plans.lanes(batch, PAPER["M"], PAPER["D"], DTYPES[kind])
    tile = {**TILE, "SUB": share.samples, "VECTOR": share.vector, "REDUCTION": reduction}
    case = partial(Case, KERNELS + "relation", capability=capability, warps=share.warps)
    yield case(
        "relation_forward",
        types("latents product inter_bias classifier classifier_bias logits embedding", kind)
        | wide("sums intra inter distances")
        | numbers,
        tile | has("BIAS CLASSIFIER CLASSIFIER_BIAS"),
    )
    yield case(
        "relation_backward",
        types("grad_logits grad_embedding latents product inter_bias classifier dp y", kind)
        | wide("grad_intra grad_inter intra distances slope dy")
        | numbers,
        tile | has("BIAS GRAD_LOGITS GRAD_EMBEDDING GRAD_INTRA GRAD_INTER"),
    )


def parameter_case(kind: str, precision: str, capability: int) -> Case:
    layers = ("decomposition", "intra", "inter", "classifier")
    parameters = " ".join(f"{layer}_weight {layer}_bias" for layer in layers)
    given = types(f"input dz latents entering dp grad_logits y {parameters}", kind)
    block, warps = (16, 8) if kind == "fp32" else (64, 4)
    return Case(
        KERNELS + "parameters",
        "parameter_gradients",
        given | {"N": "i32", "P": "i32", "K": "i32"},
        {**PAPER, "BN": block, "BI": 64, "BJ": 64, "PRECISION": precision}
        | has("DECOMPOSITION_BIAS INTRA_BIAS INTER_BIAS CLASSIFIER_BIAS"),
        capability,
        warps,
    )


def loss_cases(kind: str, capability: int) -> Iterator[Case]:
    weights = ("compactness", "balance", "distribution")
    lambdas = {f"lambda_{name}": "fp32" for name in weights}
    common = {"target_ptr": "*i64", "N": "i32", "K": "i32", "ignore_index": "i32"}
    rows: dict[str, Any] = {**LOSS, "ROWS": 16}
    sums = types("logits latents", kind) | wide("intra latent_centers class_centers weight parts")
    yield Case(
        KERNELS + "sums",
        "partial_sums",
        sums | common | {"width": "i32", "span": "i32", "smoothing": "fp32"},
        rows | has("WEIGHT"),
        capability,
    )
    case = partial(Case, KERNELS + "centers", capability=capability)
    parts = {"class_seen_ptr": "*i1", "corrections_ptr": "*fp64"}
    parts |= {"width": "i32", "K": "i32", "programs": "i32"}
    centers = wide("parts latent_centers class_centers state") | {"latent_seen_ptr": "*i1"}
    yield case("move_centers", centers | parts | {"rate": "fp32"}, {**LOSS, "ALPHA": True})
    yield case("join_terms", wide("parts terms state") | parts | lambdas, LOSS)
    gradients = types("logits latents grad_logits grad_latents", kind)
    gradients |= wide(f"total classification {' '.join(weights)} intra weight state grad_intra")
    yield Case(
        KERNELS + "terms",
        "term_gradients",
        gradients | common | lambdas | {"smoothing": "fp32"},
        rows | has("TOTAL CE COMPACTNESS BALANCE DISTRIBUTION WEIGHT"),
        capability,
    )


def cases() -> Iterator[Case]:
    for capability in SHARED:
        for kind, precision in KINDS:
            for batch in (64, 4096):
                yield from branch_cases(kind, precision, capability, batch)
            yield parameter_case(kind, precision, capability)
            if precision == "ieee":
                yield from relation_cases(kind, capability, 4096)
                if capability == 90 and kind == "bf16":
                    yield from relation_cases(kind, capability, 64)
                yield from loss_cases(kind, capability)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_kernel_spills_and_all_fit() -> None:
    every = list(cases())
    for case, resources in zip(every, compile_all(every), strict=True):
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
    found = list(relation_cases("bf16", 90, batch, "sum"))
    for case, resources in zip(found, compile_all(found), strict=True):
        spent = resources.instructions * case.warps / case.constants["SUB"]
        said = f"{case.name}: {resources}"
        # Other versions of Triton may take a little more.
        assert spent <= 1.05 * WARP_INSTRUCTIONS[batch, case.kernel], said
        assert (resources.barriers <= 3, resources.spilled_bytes) == (True, 0), said


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
    large = replace(case, constants=case.constants | {"BN": 256}, warps=4)
    (resources,) = compile_all([large])
    assert resources.spilled_bytes > 0
