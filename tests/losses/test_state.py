"""Centers are state: saved, loaded, copied, moved and forgotten with the loss."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from devices import each_of
from fdrl_layers import FDRLLoss
from loss_cases import CENTERED, JOINT, RULES, SMALL, LossCase, assert_same_state, labels, state_of
from loss_shared import RULE


def trained(case: LossCase, rule: str) -> Any:
    loss = case.new(center_update=rule, center_rate=0.25)
    case.train(loss)
    return loss


@RULE
def test_the_keys_of_the_joint_loss_are_api(rule: str) -> None:
    state = JOINT.new(center_update=rule).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == {
        "compactness.centers.value": (SMALL.M, SMALL.D),
        "compactness.centers.seen": (SMALL.M,),
        "distribution.centers.value": (SMALL.K, SMALL.M),
        "distribution.centers.seen": (SMALL.K,),
    }


def through_a_file(loss: Any) -> Any:
    file = io.BytesIO()
    torch.save(loss.state_dict(), file)
    file.seek(0)
    loaded = copy.deepcopy(loss)
    loaded.reset_parameters()
    loaded.load_state_dict(torch.load(file, weights_only=True))
    return loaded


def through_pickle(loss: nn.Module) -> Any:
    return pickle.loads(pickle.dumps(loss))


@each_of(CENTERED)
@RULE
@pytest.mark.parametrize(
    "copied", [through_a_file, through_pickle, copy.deepcopy], ids=lambda copied: copied.__name__
)
def test_a_copy_goes_on_alike_and_alone(
    case: LossCase, rule: str, copied: Callable[[nn.Module], nn.Module]
) -> None:
    loss = trained(case, rule)
    twin, before = copied(loss), state_of(loss)
    assert_same_state(twin.state_dict(), before)
    target = torch.tensor([4, 0, 1, -100, 3, 4])  # class 4 is new to them
    found = case.run(twin, case.inputs(seed=5), target)
    assert_same_state(loss.state_dict(), before)
    assert_same_state(found, case.run(loss, case.inputs(seed=5), target))
    assert_same_state(twin.state_dict(), loss.state_dict())


@each_of(CENTERED)
@RULE
@pytest.mark.parametrize("loaded_by", RULES)
def test_one_rule_loads_the_centers_of_another(case: LossCase, rule: str, loaded_by: str) -> None:
    state, loss = state_of(trained(case, rule)), case.new(center_update=loaded_by)
    loss.load_state_dict(state)
    assert_same_state(loss.state_dict(), state)
    nothing = torch.full((SMALL.N,), -100)
    before = case.held(loss)
    case.run(loss, case.inputs(seed=3), nothing if case.labeled else None)
    if case.labeled or loaded_by == "gradient":  # what was loaded is seen, and does not start anew
        name = case.centers[-1].argument
        assert torch.equal(case.held(loss)[name], before[name])
    assert {name for name, _ in loss.named_parameters()} == (
        {key for key in state if key.endswith("value")} if loaded_by == "gradient" else set()
    )


def emptied(case: LossCase, rule: str) -> Any:
    """What was on the meta device, with NaN where `to_empty` leaves anything."""
    loss = case.new(center_update=rule, device="meta")
    assert {value.device.type for value in loss.state_dict().values()} == {"meta"}
    loss.to_empty(device="cpu")
    for key, value in loss.state_dict().items():
        value.fill_(True if key.endswith("seen") else torch.nan)
    return loss


@each_of(CENTERED)
@RULE
@pytest.mark.parametrize("made", [trained, emptied], ids=["trained", "meta device"])
def test_reset_forgets_what_there_was(
    case: LossCase, rule: str, made: Callable[[LossCase, str], Any]
) -> None:
    loss, fresh = made(case, rule), case.new(center_update=rule)
    loss.reset_parameters()
    assert_same_state(loss.state_dict(), fresh.state_dict())
    for each in (loss, fresh):
        case.run(each, case.inputs(seed=4), labels())
    assert_same_state(case.held(loss), case.held(fresh))
    assert len(list(loss.parameters())) == (len(case.centers) if rule == "gradient" else 0)


@each_of(CENTERED)
@RULE
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_centers_move_to_another_type(case: LossCase, rule: str, dtype: torch.dtype) -> None:
    loss = trained(case, rule)
    before = state_of(loss)
    loss.to(dtype)
    wanted = {k: v if k.endswith("seen") else v.to(dtype) for k, v in before.items()}
    assert_same_state(loss.state_dict(), wanted)
    found = case.run(loss, case.inputs(dtype=dtype), labels())
    assert {v.dtype for v in found.values()} == {torch.float32}
    assert {v.dtype for v in loss.state_dict().values()} == {torch.bool, dtype}


def test_the_type_is_torch_s_default() -> None:
    assert FDRLLoss(5).compactness.centers.value.dtype == torch.float32
    assert FDRLLoss(5, dtype=torch.float64).distribution.centers.value.dtype == torch.float64
