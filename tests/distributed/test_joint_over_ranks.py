"""The fused joint loss over ranks: one exchange each way, and the values of the joined batch."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, distributed as dist

from devices import OF_KERNELS, marks_of
from fdrl_layers.ops import joint as operator
from loss_cases import JOINT, assert_same_state, gradients_of, state_of, wanting
from loss_shared import RULE, assert_close_state
from ranks import SIZE, Ranks, Step, check_ranks, part
from strategies import Sizes

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(120)]

OF = Sizes(N=11, P=4, M=3, D=32, K=5)
CUTS = {2: ([5, 6], [11, 0], [0, 11]), 3: ([4, 4, 3], [0, 11, 0], [1, 0, 10])}
"""How many samples each rank has, in one step after another."""
LABELS = (
    torch.tensor([0, 1, -100, 0, 2, 2, -100, -100, 1, 1, 0]),
    torch.tensor([1, 2, 1, 0, 3, -100, 3, 3, 0, 2, 2]),
    torch.tensor([-100] * 8 + [4, 3, 0]),
)
FORMS = ("torch", pytest.param("triton", marks=marks_of(OF_KERNELS)))
UPSTREAM = (1.0, 0.5, 2.0, 0.25, 3.0)
TERMS = ("total", "classification", "compactness", "balance", "distribution")
Cuts = Sequence[list[int]]


@pytest.fixture(
    scope="module", params=[SIZE, pytest.param(3, marks=pytest.mark.slow)], ids="{} ranks".format
)
def group(request: pytest.FixtureRequest) -> Iterator[Ranks]:
    own = None if request.param == SIZE else Ranks(request.param)
    yield own or request.getfixturevalue("ranks")
    if own:
        own.stop()


def parts_of(inputs: dict[str, Tensor], rank: int | None, cut: list[int]) -> dict[str, Tensor]:
    return {name: part(value, rank, cut) for name, value in inputs.items()}


def follow(rank: int | None, cuts: Cuts, form: str, options: dict[str, Any]) -> list[Step]:
    """Give a loss three batches; on ranks, each is one exchange forwards and one backwards."""
    if form == "triton":
        pytest.importorskip("triton")
    # Gloo exchanges what is on a GPU as well.
    device, dtype = (OF_KERNELS, torch.float32) if form == "triton" else ("cpu", torch.float64)
    case = replace(JOINT, device=device)
    loss = case.new(OF, dtype, backend=form, lambda_compactness=0.3, **options)
    steps: list[Step] = []
    for seed, (target, cut) in enumerate(zip(LABELS, cuts, strict=True)):
        inputs = wanting(parts_of(case.inputs(OF, seed, dtype=dtype), rank, cut))
        with (
            mock.patch.object(dist, "all_reduce", wraps=dist.all_reduce) as exchange,
            mock.patch.object(operator, "_triton_forward", wraps=operator._triton_forward) as run,
        ):
            terms = case.run(loss, inputs, part(target.to(device), rank, cut))
            assert exchange.call_count == (rank is not None)
            weighted = [w * terms[name] for w, name in zip(UPSTREAM, TERMS, strict=True)]
            gradients = gradients_of(torch.stack(weighted).sum(), inputs)
            assert exchange.call_count == 2 * (rank is not None)
            assert run.called == (form == "triton")
        losses = {name: term.detach() for name, term in terms.items()}
        steps.append({"losses": losses, "gradients": gradients, "state": state_of(loss)})
    return steps


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rule", ["alpha", "ema"])
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_ranks_are_one_process(group: Ranks, rule: str, form: str, weighted: bool) -> None:
    options = {"center_update": rule, "label_smoothing": 0.1}
    if weighted:
        options["weight"] = torch.tensor([0.5, 2.0, 0.0, 1.5, 4.0])
    cuts = CUTS[group.size]

    def gradient(name: str, whole: Tensor, number: int, rank: int) -> Tensor:
        # What averaging over the ranks makes into the gradient of the joint batch.
        return group.size * part(whole, rank, cuts[number])

    dtype = torch.float32 if form == "triton" else torch.float64
    expected = follow(None, cuts, form, options)
    check_ranks(group.run(follow, cuts, form, options), expected, dtype, gradient)


def meet(rank: int, form: str, fused: bool, cut: list[int]) -> list[dict[str, Tensor]]:
    """Return the states around batches, of which the last sample of the first and third is NaN."""
    dtype = torch.float32 if form == "triton" else torch.float64
    loss = JOINT.new(OF, dtype, backend=form)
    if not fused:
        loss.balance.register_forward_hook(lambda *_: None)
        loss.backend = "auto"
    states = [state_of(loss)]
    for seed in range(3):
        inputs = JOINT.inputs(OF, seed, dtype=dtype)
        if seed != 1:
            inputs["latents"][-1, 0, 0] = inputs["intra_weights"][-1, 0] = torch.nan
        found = JOINT.run(loss, parts_of(inputs, rank, cut), part(LABELS[1], rank, cut))
        assert found["total"].isfinite() == (seed == 1)
        states.append(state_of(loss))
    return states


@pytest.mark.parametrize(("form", "fused"), [("torch", True), ("torch", False), ("triton", True)])
def test_one_rank_that_is_not_finite_moves_no_center_on_any(
    group: Ranks, form: str, fused: bool
) -> None:
    for before, after, moved, last in group.run(meet, form, fused, CUTS[group.size][0]):
        assert_same_state(before, after)
        assert moved["compactness.centers.seen"].all()
        assert_same_state(moved, last)


def is_fused(rank: int) -> bool:
    with mock.patch("fdrl_layers.losses.joint.module.joint", wraps=operator.joint) as fused:
        JOINT.run(JOINT.new(OF), JOINT.inputs(OF), LABELS[0])
    return bool(fused.called)


def test_the_loss_is_fused(group: Ranks) -> None:
    assert all(group.run(is_fused))


def follow_in_parts(rank: int | None, cut: list[int], rule: str) -> dict[str, Tensor]:
    """Give a loss batches in two parts; one process has them whole."""
    loss = JOINT.new(OF, center_update=rule)
    for seed, target in enumerate(LABELS):
        inputs, labels = parts_of(JOINT.inputs(OF, seed), rank, cut), part(target, rank, cut)
        with nullcontext() if rank is None else loss.accumulate():
            for rows in (slice(0, 2), slice(2, None)) if rank is not None else (slice(None),):
                JOINT.run(loss, {n: v[rows] for n, v in inputs.items()}, labels[rows])
    return state_of(loss)


@RULE
def test_parts_of_batches_move_centers_once_on_all_ranks(group: Ranks, rule: str) -> None:
    expected = follow_in_parts(None, [], rule)
    for cut in CUTS[group.size]:
        states = group.run(follow_in_parts, cut, rule)
        for state in states:
            assert_same_state(state, states[0])
            assert_close_state(state, expected)
