"""Two ranks give the losses, gradients and centers of one process with the joint batch."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, distributed as dist, nn
from torch.nn.parallel import DistributedDataParallel

from comparing import assert_close
from devices import each_of
from loss_cases import CASES, CENTERED, JOINT, LossCase, assert_same_state, gradients_of, wanting
from loss_shared import RULE, model_of
from ranks import SIZE, Ranks, Step, check_ranks, part
from strategies import Sizes, normal

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(120)]

JOINED = Sizes(N=8, P=2, M=3, D=4, K=5)
CUTS = {"equal": (4, 4), "unequal": (6, 2), "all on one": (8, 0)}
CUT = pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
Cut = tuple[int, int]

# Cut at 4, classes 0 and 1 lie on the first rank only and class 3 on the second; at any cut the
# ranks have unlike numbers of ignored samples. Class 3 is new in the second step.
LABELS = (
    torch.tensor([0, 1, -100, 0, 2, 2, -100, -100]),
    torch.tensor([1, 2, 1, 0, 3, -100, 3, 3]),
    torch.tensor([-100, -100, -100, -100, 0, 3, 2, 0]),
)
SHARES = tuple(normal(JOINED.N, JOINED.K, seed=seed, scale=2.0).softmax(1) for seed in range(3))
TARGETS = {"hard": LABELS, "soft": SHARES}
TARGET = pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)


def follow(
    rank: int | None,
    case: LossCase,
    targets: tuple[Tensor, ...],
    cut: Cut,
    dtype: torch.dtype,
    options: dict[str, Any],
) -> list[Step]:
    """Give a loss the same features in every setting; SGD moves the centers that are parameters."""
    loss = case.new(dtype=dtype, **options)
    named = dict(loss.named_parameters())
    # With the weight taken out, half of the way to the class's mean.
    rate = 0.25 / case.centers[0].weight if named else 0.0
    steps: list[Step] = []
    for seed, target in enumerate(targets):
        target = target.to(dtype) if target.is_floating_point() else target
        whole = case.inputs(JOINED, seed, dtype=dtype)
        inputs = wanting({name: part(value, rank, cut) for name, value in whole.items()})
        found = case.run(loss, inputs, part(target, rank, cut))
        grads = gradients_of(found, inputs | named)
        with torch.no_grad():
            for name, parameter in named.items():
                parameter.sub_(rate * grads[name])
        steps.append(
            {"losses": detached(found), "gradients": grads, "state": detached(loss.state_dict())}
        )
    return steps


def detached(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


@TARGET
@CUT
@RULE
@each_of(CASES)
def test_ranks_are_one_process(
    ranks: Ranks, case: LossCase, rule: str, cut: Cut, targets: tuple[Tensor, ...]
) -> None:
    arguments = case, targets, cut, torch.float64, {"center_update": rule}

    def gradient(name: str, whole: Tensor, number: int, rank: int) -> Tensor:
        # What averaging over the ranks makes into the gradient of the joint batch.
        return SIZE * part(whole, rank, cut) if name in case.axes else whole

    found = ranks.run(follow, *arguments)
    check_ranks(found, follow(None, *arguments), gradient=gradient)


@CUT
@pytest.mark.parametrize("rule", ["alpha", "ema"])
@each_of(CENTERED[:-1])  # one process computes the joint loss by an operator of its own
def test_centers_are_those_of_one_process_bit_for_bit(
    ranks: Ranks, case: LossCase, rule: str, cut: Cut
) -> None:
    arguments = case, LABELS, cut, torch.float32, {"center_update": rule}
    expected = follow(None, *arguments)
    for steps in ranks.run(follow, *arguments):
        for step, one in zip(steps, expected, strict=True):
            assert_same_state(step["state"], one["state"])


def descend(rank: int | None, cut: Cut) -> list[dict[str, Tensor]]:
    """Move the centers of the joint loss by SGD, on numbers that float32 holds exactly.

    A gradient is a sum over the batch, whose rounding depends on how it is cut; here none rounds.
    """
    loss = JOINT.new(JOINED, torch.float32, center_update="gradient", lambda_compactness=0.25)
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.5)
    target = part(torch.tensor([0, 1, 2, 3, 3, 2, 1, 0]), rank, cut)
    states = []
    for seed in range(3):
        inputs = JOINT.inputs(JOINED, seed, dtype=torch.float32)
        inputs = {name: part((4 * value).round(), rank, cut) for name, value in inputs.items()}
        found = JOINT.run(loss, inputs, target)
        optimizer.zero_grad()
        (found["compactness"] + found["distribution"]).backward()
        optimizer.step()
        states.append(detached(loss.state_dict()))
    return states


@CUT
def test_centers_that_are_parameters_are_those_of_one_process_bit_for_bit(
    ranks: Ranks, cut: Cut
) -> None:
    expected = descend(None, cut)
    for states in ranks.run(descend, cut):
        for state, one in zip(states, expected, strict=True):
            assert_same_state(state, one)


def whole(tensor: Tensor) -> Tensor:
    """A copy of a tensor, and all of one that is spread over the ranks."""
    found: Tensor = getattr(tensor, "full_tensor", tensor.clone)()
    return found.detach().clone()


def shard(*modules: nn.Module) -> None:
    from torch.distributed.fsdp import fully_shard

    mesh = dist.device_mesh.init_device_mesh("cpu", (SIZE,))
    for module in modules:
        fully_shard(module, mesh=mesh)


def train(rank: int | None, rule: str, cut: Cut, how: str) -> list[Step]:
    """Train model and centers by SGD; what is not wrapped has its gradients averaged by hand.

    Where they come late, the second batch's gradients wait for the third's.
    """
    model = model_of(JOINED)
    loss = JOINT.new(JOINED, center_update=rule, lambda_compactness=0.1, lambda_distribution=0.1)
    run_model: Any = model
    run_loss = loss
    if rank is not None and "model" in how:
        run_model = DistributedDataParallel(model, static_graph="static" in how)
    if rank is not None and "loss" in how and rule == "gradient":
        run_loss = DistributedDataParallel(loss)
    if rank is not None and how == "sharded":
        shard(model[2], model)
    named = {**dict(model.named_parameters()), **dict(loss.named_parameters())}
    optimizer = torch.optim.SGD(named.values(), lr=0.1)
    steps: list[Step] = []
    for seed, target in enumerate(LABELS):
        features = part(normal(JOINED.N, 3, seed=seed), rank, cut)
        # DDP with a static graph cannot begin with a step that waits.
        waits = "late" in how and seed == 1
        with run_model.no_sync() if waits and rank is not None else nullcontext():
            found = run_loss(run_model(features), part(target, rank, cut))
            found.total.backward()
        if rank is not None and how == "nothing":
            for parameter in model.parameters():
                assert parameter.grad is not None
                dist.all_reduce(parameter.grad)
                parameter.grad /= SIZE
        gradients = {}
        if not waits:
            gradients = {n: whole(p.grad) for n, p in named.items() if p.grad is not None}
            optimizer.step()
            optimizer.zero_grad()
        state = {n: whole(v) for n, v in {**model.state_dict(), **loss.state_dict()}.items()}
        steps.append({"losses": detached(vars(found)), "gradients": gradients, "state": state})
    return steps


FSDP = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 9),
    reason="before torch 2.9 FSDP2 does not run on a CPU",
)
WRAPPED = ("model", "static model", "late model", "static late model", "model and loss", "nothing")


@CUT
@RULE
@pytest.mark.parametrize("how", [*WRAPPED, pytest.param("sharded", marks=FSDP)])
def test_a_training_is_that_of_one_process(ranks: Ranks, rule: str, cut: Cut, how: str) -> None:
    check_ranks(ranks.run(train, rule, cut, how), train(None, rule, cut, how))


def shard_a_part(rank: int) -> tuple[str | None, Tensor, Tensor]:
    """Shard a part of a head on its own, which the head then calls; compare with the whole one."""
    model, same = model_of(JOINED), model_of(JOINED)
    shard(model.get_submodule("2.decomposition"))
    head: Any = model[2]
    x = normal(JOINED.N, 3, seed=0)
    return head._reason_to_call_parts(), model(x).logits.detach(), same(x).logits.detach()


@FSDP
def test_a_part_sharded_on_its_own_is_called(ranks: Ranks) -> None:
    for reason, found, want in ranks.run(shard_a_part):
        assert reason is not None
        assert reason.startswith("`decomposition`")
        assert_close("logits", found, want)


@RULE
@each_of(CASES)
def test_ranks_may_keep_to_themselves(ranks: Ranks, case: LossCase, rule: str) -> None:
    options = {"center_update": rule, "across_ranks": False}
    arguments = case, LABELS, CUTS["unequal"], torch.float64, options
    found = ranks.run(follow, *arguments)
    for rank, steps in enumerate(found):
        # This process has no group, so that here a rank's part is all there is.
        for step, alone in zip(steps, follow(rank, *arguments), strict=True):
            for kind in step:
                assert_same_state(step[kind], alone[kind])
    assert found[0][0]["losses"] != found[1][0]["losses"]


def evaluate(rank: int | None, case: LossCase, rule: str, turn: int | None) -> Step | None:
    """Train together, then evaluate and call the function on one rank alone."""
    loss, cut = case.new(center_update=rule), CUTS["equal"]
    inputs = {name: part(value, rank, cut) for name, value in case.inputs(JOINED).items()}
    case.run(loss, inputs, part(LABELS[0], rank, cut))
    loss.eval()
    found: Step | None = None
    if rank == turn:
        alone = wanting({n: v[:3] for n, v in case.inputs(JOINED, 1).items()})
        losses = case.run(loss, alone, LABELS[1][:3])
        grads = gradients_of(losses, alone)
        function = case.apply(case.inputs(JOINED), LABELS[0], case.drawn_centers(JOINED))
        found = {"losses": detached(losses), "gradients": grads, "function": detached(function)}
    if rank is not None:
        dist.barrier()
    return found


@pytest.mark.parametrize("turn", range(SIZE))
@RULE
@each_of(CASES)
def test_evaluation_and_functions_exchange_nothing(
    ranks: Ranks, case: LossCase, rule: str, turn: int
) -> None:
    found = ranks.run(evaluate, case, rule, turn)
    expected = evaluate(None, case, rule, None)
    assert expected is not None
    assert found[1 - turn] is None
    assert_same_state(found[turn].pop("function"), expected.pop("function"))
    for kind, tensors in expected.items():
        assert_close(kind, found[turn][kind], tensors)


def fail_on_the_second(rank: int) -> int:
    if rank == 1:
        raise ValueError("on purpose")
    return rank


def test_a_failure_on_one_rank_is_one_of_the_test(ranks: Ranks) -> None:
    with pytest.raises(AssertionError, match=r"(?s)rank 1: .*ValueError: on purpose"):
        ranks.run(fail_on_the_second)
