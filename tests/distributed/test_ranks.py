"""Two ranks give the losses, gradients and centers of one process with the joint batch."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, distributed as dist, nn
from torch.nn.parallel import DistributedDataParallel

from comparing import assert_close
from devices import each_of
from fdrl_layers import FDRLHead, FDRLLoss, FDRLOutput
from loss_cases import (
    CASES,
    CENTERED,
    JOINT,
    RULES,
    LossCase,
    assert_same_state,
    gradients_of,
    scalar,
    state_of,
    wanting,
)
from ranks import SIZE, Ranks
from strategies import Sizes, normal, parameters_for

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(120)]

JOINED = Sizes(N=8, P=2, M=3, D=4, K=5)
CUTS = {"equal": 4, "unequal": 6, "all on one": 8}
CUT = pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
RULE = pytest.mark.parametrize("rule", RULES)

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

Step = dict[str, dict[str, Tensor]]


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    group = Ranks()
    yield group
    group.stop()


def shard(tensor: Tensor, rank: int | None, cut: int) -> Tensor:
    """The part of a batch that lies on a rank; all of it in the one process that is no rank."""
    return tensor if rank is None else (tensor[:cut], tensor[cut:])[rank]


def batch_of(case: LossCase, seed: int, dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: value.to(dtype) for name, value in case.inputs(JOINED, seed).items()}


def follow(
    rank: int | None,
    case: LossCase,
    targets: tuple[Tensor, ...],
    cut: int,
    dtype: torch.dtype,
    options: dict[str, Any],
) -> list[Step]:
    """Give a loss the same features in every setting; SGD moves the centers that are parameters."""
    loss = case.new(dtype=dtype, **options)
    parameters = list(loss.parameters())
    # With the weight taken out, half of the way to the class's mean.
    rate = 0.25 / case.centers[0].weight if parameters else 0.0
    steps = []
    for seed, target in enumerate(targets):
        target = target.to(dtype) if target.is_floating_point() else target
        inputs = {n: shard(v, rank, cut) for n, v in batch_of(case, seed, dtype).items()}
        inputs = wanting(inputs)
        found = case.run(loss, inputs, shard(target, rank, cut))
        wanted = {**inputs, **dict(loss.named_parameters())}
        grads = gradients_of(scalar(found), wanted)
        with torch.no_grad():
            for name, parameter in loss.named_parameters():
                parameter.sub_(rate * grads[name])
        steps.append({"losses": detached(found), "gradients": grads, "state": state_of(loss)})
    return steps


def detached(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


@TARGET
@CUT
@RULE
@each_of(CASES)
def test_ranks_are_one_process(
    ranks: Ranks, case: LossCase, rule: str, cut: int, targets: tuple[Tensor, ...]
) -> None:
    options = {"center_update": rule}
    arguments = case, targets, cut, torch.float64, options
    expected = follow(None, *arguments)
    found = ranks.run(follow, *arguments)
    for number, one in enumerate(expected):
        for rank, steps in enumerate(found):
            step = steps[number]
            assert_close(f"step {number}, rank {rank}", step["losses"], one["losses"])
            for name, gradient in step["gradients"].items():
                # What averaging over the ranks makes into the gradient of the joint batch.
                wanted = one["gradients"][name]
                wanted = SIZE * shard(wanted, rank, cut) if name in case.axes else wanted
                assert_close(f"step {number}, rank {rank}, {name}", gradient, wanted)
            assert_same_state(step["state"], found[0][number]["state"])
            for key, value in one["state"].items():
                assert_close(key, step["state"][key].double(), value.double())


@CUT
@pytest.mark.parametrize("rule", ["alpha", "ema"])
@each_of(CENTERED)
def test_centers_are_those_of_one_process_bit_for_bit(
    ranks: Ranks, case: LossCase, rule: str, cut: int
) -> None:
    arguments = case, LABELS, cut, torch.float32, {"center_update": rule}
    expected = follow(None, *arguments)
    found = ranks.run(follow, *arguments)
    for steps in found:
        for number, (step, one) in enumerate(zip(steps, expected, strict=True)):
            if case.loss is FDRLLoss:
                # One process computes it by an operator of its own, whose sums are in float32.
                assert_same_state(step["state"], found[0][number]["state"])
                for key, value in one["state"].items():
                    assert_close(key, step["state"][key].float(), value.float())
            else:
                assert_same_state(step["state"], one["state"])


def descend(rank: int | None, cut: int) -> list[dict[str, Tensor]]:
    """Move the centers of the joint loss by SGD, on numbers that float32 holds exactly.

    A gradient is a sum over the batch, whose rounding depends on how it is cut; here none rounds.
    """
    loss = JOINT.new(JOINED, torch.float32, center_update="gradient", lambda_compactness=0.25)
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.5)
    target = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])
    states = []
    for seed in range(3):
        inputs = batch_of(JOINT, seed, torch.float32)
        inputs = {name: shard((4 * value).round(), rank, cut) for name, value in inputs.items()}
        found = JOINT.run(loss, inputs, shard(target, rank, cut))
        optimizer.zero_grad()
        (found["compactness"] + found["distribution"]).backward()
        optimizer.step()
        states.append(state_of(loss))
    return states


@CUT
def test_centers_that_are_parameters_are_those_of_one_process_bit_for_bit(
    ranks: Ranks, cut: int
) -> None:
    expected = descend(None, cut)
    for states in ranks.run(descend, cut):
        for state, one in zip(states, expected, strict=True):
            assert_same_state(state, one)


class Model(nn.Module):
    """A backbone of one layer and a head, the same everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(3, JOINED.P, dtype=torch.float64)
        self.head = FDRLHead(
            JOINED.P, JOINED.K, latent_dim=JOINED.D, num_latents=JOINED.M, dtype=torch.float64
        )
        self.head.load_state_dict(parameters_for(JOINED, 0))
        self.backbone.load_state_dict({"weight": normal(2, 3, seed=1), "bias": normal(2, seed=2)})

    def forward(self, input: Tensor) -> FDRLOutput:
        found = self.head(self.backbone(input).relu())
        assert isinstance(found, FDRLOutput)
        return found


def train(
    rank: int | None,
    rule: str,
    cut: int,
    wrapped: Literal["model", "model and loss", "nothing"],
) -> list[Step]:
    """Train model and centers by SGD; what is not wrapped has its gradients averaged by hand."""
    model = Model()
    loss = JOINT.new(JOINED, center_update=rule, lambda_compactness=0.1, lambda_distribution=0.1)
    named = {**dict(model.named_parameters()), **dict(loss.named_parameters())}
    optimizer = torch.optim.SGD(named.values(), lr=0.1)
    run_model: nn.Module = model
    run_loss: nn.Module = loss
    if rank is not None and wrapped != "nothing":
        run_model = DistributedDataParallel(model)
        if wrapped == "model and loss" and rule == "gradient":
            run_loss = DistributedDataParallel(loss)
    steps = []
    for seed, target in enumerate(LABELS):
        features = shard(normal(JOINED.N, 3, seed=seed), rank, cut)
        found = run_loss(run_model(features), shard(target, rank, cut))
        optimizer.zero_grad()
        found.total.backward()
        if rank is not None and wrapped == "nothing":
            for parameter in model.parameters():
                assert parameter.grad is not None
                dist.all_reduce(parameter.grad)
                parameter.grad /= SIZE
        gradients = {n: p.grad.clone() for n, p in named.items() if p.grad is not None}
        optimizer.step()
        state = {**model.state_dict(), **state_of(loss)}
        losses = detached(vars(found))
        steps.append({"losses": losses, "gradients": gradients, "state": detached(state)})
    return steps


@CUT
@RULE
@pytest.mark.parametrize("wrapped", ["model", "model and loss", "nothing"])
def test_a_training_is_that_of_one_process(
    ranks: Ranks, rule: str, cut: int, wrapped: Literal["model", "model and loss", "nothing"]
) -> None:
    expected = train(None, rule, cut, wrapped)
    found = ranks.run(train, rule, cut, wrapped)
    for number, one in enumerate(expected):
        for rank, steps in enumerate(found):
            step = steps[number]
            assert_close(f"step {number}, rank {rank}", step["losses"], one["losses"])
            assert_close(f"step {number}, rank {rank}", step["gradients"], one["gradients"])
            for key, value in one["state"].items():
                assert_close(key, step["state"][key].double(), value.double())
            assert_same_state(step["state"], found[0][number]["state"])


@RULE
@each_of(CASES)
def test_ranks_may_keep_to_themselves(ranks: Ranks, case: LossCase, rule: str) -> None:
    options = {"center_update": rule, "across_ranks": False}
    arguments = case, LABELS, 6, torch.float64, options
    found = ranks.run(follow, *arguments)
    for rank, steps in enumerate(found):
        # This process has no group, so that here a rank's part is all there is.
        for step, alone in zip(steps, follow(rank, *arguments), strict=True):
            assert_same_state(step["losses"], alone["losses"])
            assert_same_state(step["gradients"], alone["gradients"])
            assert_same_state(step["state"], alone["state"])
    assert found[0][0]["losses"] != found[1][0]["losses"]


def evaluate(rank: int, case: LossCase, rule: str, turn: int) -> Step | None:
    """Train together, then evaluate on one rank alone."""
    loss = case.new(center_update=rule)
    inputs, cut = batch_of(case, 0, torch.float64), 4
    case.run(loss, {n: shard(v, rank, cut) for n, v in inputs.items()}, shard(LABELS[0], rank, cut))
    loss.eval()
    found = None
    if rank == turn:
        alone = wanting({n: v[:3] for n, v in batch_of(case, 1, torch.float64).items()})
        losses = case.run(loss, alone, LABELS[1][:3])
        grads = gradients_of(scalar(losses), alone)
        found = {"losses": detached(losses), "gradients": grads, "state": state_of(loss)}
    dist.barrier()
    return found


@pytest.mark.parametrize("turn", range(SIZE))
@RULE
@each_of(CASES)
def test_evaluation_exchanges_nothing(ranks: Ranks, case: LossCase, rule: str, turn: int) -> None:
    found = ranks.run(evaluate, case, rule, turn)
    assert found[1 - turn] is None
    loss = case.new(center_update=rule)
    case.run(loss, batch_of(case, 0, torch.float64), LABELS[0])
    loss.eval()
    inputs = wanting({n: v[:3] for n, v in batch_of(case, 1, torch.float64).items()})
    expected = case.run(loss, inputs, LABELS[1][:3])
    assert_close("losses", found[turn]["losses"], expected)
    grads = gradients_of(scalar(expected), inputs)
    assert_close("gradients", found[turn]["gradients"], grads)


def functions(rank: int, case: LossCase) -> dict[str, Tensor]:
    """Call the function on one rank alone, as it knows of no ranks."""
    found = {}
    if rank == 0:
        inputs, centers = batch_of(case, 0, torch.float64), case.drawn_centers(JOINED)
        found = detached(case.apply(inputs, LABELS[0], centers))
    dist.barrier()
    return found


@each_of(CASES)
def test_functions_exchange_nothing(ranks: Ranks, case: LossCase) -> None:
    inputs, centers = batch_of(case, 0, torch.float64), case.drawn_centers(JOINED)
    expected = case.apply(inputs, LABELS[0], centers)
    assert_same_state(ranks.run(functions, case)[0], expected)


def fail_on_the_second(rank: int) -> int:
    if rank == 1:
        raise ValueError("on purpose")
    return rank


def test_a_failure_on_one_rank_is_one_of_the_test(ranks: Ranks) -> None:
    with pytest.raises(AssertionError, match=r"(?s)rank 1: .*ValueError: on purpose"):
        ranks.run(fail_on_the_second)
