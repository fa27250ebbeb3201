"""The fused joint loss over ranks: one exchange each way, and the values of the joined batch."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, distributed as dist, nn
from torch.nn.parallel import DistributedDataParallel

from comparing import assert_close
from devices import OF_KERNELS, marks_of
from fdrl_layers import FDRLHead, FDRLLoss, FDRLOutput
from fdrl_layers.ops import joint as operator
from loss_cases import JOINT, RULES, assert_same_state, state_of
from ranks import Ranks
from strategies import Sizes, normal

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


@pytest.fixture(
    scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)], ids="{} ranks".format
)
def ranks(request: pytest.FixtureRequest) -> Iterator[tuple[int, Ranks]]:
    group = Ranks(request.param)
    yield request.param, group
    group.stop()


def part(tensor: Tensor, rank: int | None, cut: list[int]) -> Tensor:
    return tensor if rank is None else tensor.split(cut)[rank]


def follow(
    rank: int | None, cuts: tuple[list[int], ...], form: str, options: dict[str, Any]
) -> list[dict[str, Any]]:
    """Give a loss three batches; return terms, gradients, state and the number of exchanges."""
    if form == "triton":
        pytest.importorskip("triton")
    # Gloo exchanges what is on a GPU as well.
    device, dtype = (OF_KERNELS, torch.float32) if form == "triton" else ("cpu", torch.float64)
    case = replace(JOINT, device=device)
    loss = case.new(OF, dtype, backend=form, lambda_compactness=0.3, **options)
    steps = []
    for seed, (target, cut) in enumerate(zip(LABELS, cuts, strict=True)):
        inputs = {n: part(v.to(dtype), rank, cut) for n, v in case.inputs(OF, seed).items()}
        leaves = {n: v.clone().requires_grad_() for n, v in inputs.items()}
        arguments = case.arguments(leaves, part(target.to(device), rank, cut))
        with (
            mock.patch.object(dist, "all_reduce", wraps=dist.all_reduce) as exchange,
            mock.patch.object(operator, "_triton_forward", wraps=operator._triton_forward) as run,
        ):
            terms = vars(loss(*arguments))
            forward = exchange.call_count
            weighted = [w * terms[name] for w, name in zip(UPSTREAM, TERMS, strict=True)]
            found = torch.autograd.grad(torch.stack(weighted).sum(), list(leaves.values()))
            exchanges = forward, exchange.call_count - forward
            assert run.called == (form == "triton")
        steps.append(
            {
                "terms": {name: term.detach() for name, term in terms.items()},
                "gradients": dict(zip(leaves, found, strict=True)),
                "state": state_of(loss),
                "exchanges": exchanges,
            }
        )
    return steps


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rule", ["alpha", "ema"])
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_ranks_are_one_process(
    ranks: tuple[int, Ranks], rule: str, form: str, weighted: bool
) -> None:
    size, group = ranks
    options = {"center_update": rule, "label_smoothing": 0.1}
    if weighted:
        options["weight"] = torch.tensor([0.5, 2.0, 0.0, 1.5, 4.0])
    arguments = CUTS[size], form, options
    expected = follow(None, *arguments)
    found = group.run(follow, *arguments)
    dtype = torch.float32 if form == "triton" else torch.float64
    for number, one in enumerate(expected):
        for rank, steps in enumerate(found):
            step, cut = steps[number], CUTS[size][number]
            assert step["exchanges"] == (1, 1)
            assert_close(f"step {number}, rank {rank}", step["terms"], one["terms"], dtype)
            for name, gradient in step["gradients"].items():
                # What averaging over the ranks makes into the gradient of the joint batch.
                wanted = size * part(one["gradients"][name], rank, cut)
                assert_close(f"step {number}, rank {rank}, {name}", gradient, wanted, dtype)
            assert_same_state(step["state"], found[0][number]["state"])
            for key, value in one["state"].items():
                assert_close(key, step["state"][key].double(), value.double(), dtype)


def meet(rank: int, form: str, fused: bool, bad: float) -> list[dict[str, Tensor]]:
    """Return the state before and after a batch whose last sample is not finite."""
    dtype = torch.float32 if form == "triton" else torch.float64
    loss: Any = JOINT.new(OF, dtype, backend=form)
    if not fused:
        loss.balance.register_forward_hook(lambda *_: None)
        loss.backend = "auto"
    states = []
    size = dist.get_world_size()
    cut = CUTS[size][0]
    for seed in (None, 1, 2):
        states.append(state_of(loss))
        inputs = {n: v.to(dtype) for n, v in JOINT.inputs(OF, seed or 0).items()}
        if seed != 1:
            inputs["latents"][-1, 0, 0] = inputs["intra_weights"][-1, 0] = bad
        parts = {n: part(v, rank, cut) for n, v in inputs.items()}
        output = FDRLOutput(embedding=torch.empty(0), inter_weights=None, **parts)
        assert loss(output, part(LABELS[1], rank, cut)).total.isfinite() == (seed == 1)
    return [*states, state_of(loss)]


@pytest.mark.parametrize(("form", "fused"), [("torch", True), ("torch", False), ("triton", True)])
def test_one_rank_that_is_not_finite_moves_no_center_on_any(
    ranks: tuple[int, Ranks], form: str, fused: bool
) -> None:
    _, group = ranks
    for before, after, moved, last in group.run(meet, form, fused, float("nan")):
        assert_same_state(before, after)
        assert moved["compactness.centers.seen"].all()
        assert_same_state(moved, last)


class Model(nn.Module):
    """A backbone of one layer and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Linear(3, OF.P, dtype=torch.float64)
        self.head = FDRLHead(
            OF.P, OF.K, latent_dim=OF.D, num_latents=OF.M, reduction="mean", dtype=torch.float64
        )

    def forward(self, input: Tensor) -> FDRLOutput:
        found = self.head(self.backbone(input).relu())
        assert isinstance(found, FDRLOutput)
        return found


def train(rank: int | None, cuts: tuple[list[int], ...], static: bool, late: bool) -> Any:
    """Train by SGD; with `late` the second batch's gradients wait for the third's."""
    model = Model()
    loss = JOINT.new(OF, lambda_compactness=0.1, lambda_distribution=0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapped: Any = model
    if rank is not None:
        wrapped = DistributedDataParallel(model, static_graph=static)
    for number, (target, cut) in enumerate(
        zip((*LABELS, LABELS[0]), (*cuts, cuts[0]), strict=True)
    ):
        # DDP with a static graph cannot begin with a step that waits.
        waits = late and number == 1
        waiting = wrapped.no_sync() if waits and rank is not None else nullcontext()
        with waiting:
            output = wrapped(part(normal(OF.N, 3, seed=number), rank, cut))
            loss(output, part(target, rank, cut)).total.backward()
        if not waits:
            optimizer.step()
            optimizer.zero_grad()
    return {
        name: value.clone()
        for name, value in (*model.state_dict().items(), *state_of(loss).items())
    }


@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static_graph"])
@pytest.mark.parametrize("late", [False, True], ids=["each step", "no_sync"])
def test_a_training_under_ddp_is_that_of_one_process(
    ranks: tuple[int, Ranks], static: bool, late: bool
) -> None:
    size, group = ranks
    expected = train(None, CUTS[size], static, late)
    for found in group.run(train, CUTS[size], static, late):
        for name, value in expected.items():
            assert_close(name, found[name].double(), value.double(), torch.float64)


def test_the_loss_is_fused(ranks: tuple[int, Ranks]) -> None:
    _, group = ranks
    assert all(group.run(_is_fused))


def _is_fused(rank: int) -> bool:
    loss, inputs = JOINT.new(OF), JOINT.inputs(OF, 0)
    assert isinstance(loss, FDRLLoss)
    output = FDRLOutput(embedding=torch.empty(0), inter_weights=None, **inputs)
    with mock.patch("fdrl_layers.losses.joint.module.joint", wraps=operator.joint) as fused:
        loss(output, LABELS[0])
    return bool(fused.called)


def follow_in_parts(rank: int | None, cut: list[int], options: dict[str, Any]) -> dict[str, Tensor]:
    """Give a loss batches in two parts; one process has them whole."""
    loss = JOINT.new(OF, **options)
    assert isinstance(loss, FDRLLoss)
    for seed, target in enumerate(LABELS):
        inputs = {n: part(v, rank, cut) for n, v in JOINT.inputs(OF, seed).items()}
        labels = part(target, rank, cut)
        if rank is None:
            JOINT.run(loss, inputs, labels)
            continue
        with loss.accumulate():
            for rows in (slice(0, 2), slice(2, None)):
                JOINT.run(loss, {n: v[rows] for n, v in inputs.items()}, labels[rows])
    return state_of(loss)


@pytest.mark.parametrize("rule", RULES)
def test_parts_of_batches_move_centers_once_on_all_ranks(
    ranks: tuple[int, Ranks], rule: str
) -> None:
    size, group = ranks
    expected = follow_in_parts(None, [], {"center_update": rule})
    for cut in CUTS[size]:
        states = group.run(follow_in_parts, cut, {"center_update": rule})
        for state in states:
            assert_same_state(state, states[0])
            for name, value in state.items():
                assert_close(name, value.double(), expected[name].double())
