"""What no loss takes: every error names the argument, what was expected and what came."""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from devices import each_of
from loss_cases import (
    BALANCE,
    CASES,
    CENTERED,
    JOINT,
    LABELED,
    LossCase,
    assert_same_state,
    labels,
    shares,
    state_of,
)
from rejecting import spoil


def check_rejected(
    case: LossCase, error: type[Exception], match: str, target: object = None, **changed: Any
) -> None:
    """Hold that the function and, where no centers are changed, the module raise the error."""
    target = labels() if target is None else target
    inputs, centers = (
        {name: changed.get(name, value) for name, value in good.items()}
        for good in (case.inputs(), case.drawn_centers())
    )
    with pytest.raises(error, match=match):
        case.apply(inputs, target, centers)
    if not changed.keys() & centers.keys():
        with pytest.raises(error, match=match):
            case.run(case.new(), inputs, target)


def named_in(match: str, case: LossCase, name: str) -> str:
    """The match, for a loss that may say of which output or which centers it speaks."""
    if case is not JOINT:
        return match
    return match.replace(f"`{name}`", rf"`(output\.|latent_|class_)?{name}`")


ARGUMENTS = [
    (case, name, name, "N, F" if name == "features" else ", ".join(axes))
    for case in CASES
    for name, axes in case.axes.items()
] + [(case, each.argument, "centers", r"\w, \w") for case in CENTERED for each in case.centers]
"""Each tensor that a function takes, what errors call it, and its letters."""


def each_argument(way: str, ways: Sequence[str]) -> pytest.MarkDecorator:
    """Each argument in each way, but for what a balance loss or centers allow."""
    params = [
        pytest.param(case, name, told, letters, each, id=f"{case.name}-{name}-{each}")
        for case, name, told, letters in ARGUMENTS
        for each in ways
        if not (case is BALANCE and each in ("device", "wider"))  # nothing else; any M is its M
        if not (told == "centers" and each == "wider")
    ]
    return pytest.mark.parametrize(("case", "name", "told", "letters", way), params)


@each_argument("how", ["list", "integer", "device"])
def test_rejects_what_is_no_feature(
    case: LossCase, name: str, told: str, letters: str, how: str
) -> None:
    bad = spoil(how, told, (case.inputs() | case.drawn_centers())[name])
    check_rejected(case, bad.error, named_in(bad.match, case, told), **{name: bad.value})


@each_argument("change", ["wider", "one axis more", "one axis less"])
def test_rejects_a_shape(case: LossCase, name: str, told: str, letters: str, change: str) -> None:
    sizes: tuple[int, ...] = tuple((case.inputs() | case.drawn_centers())[name].shape)
    changed = {"one axis more": (1, *sizes), "one axis less": sizes[1:]}
    sizes = changed.get(change, (*sizes[:-1], sizes[-1] + 1))
    match = rf"`{told}` must have shape \({letters}\).*, got {re.escape(str(sizes))}"
    check_rejected(case, ValueError, named_in(match, case, told), **{name: torch.ones(sizes)})


@pytest.mark.parametrize("name", JOINT.axes)
def test_rejects_a_batch_of_two_sizes(name: str) -> None:
    short = JOINT.inputs()[name][1:]
    check_rejected(JOINT, ValueError, r"must have shape \(N.*with N = \d", **{name: short})


def put(target: Tensor, index: Any, values: Any) -> Tensor:
    target[index] = torch.as_tensor(values, dtype=target.dtype)
    return target


BELOW_0 = put(shares(), 4, [2, -1, 0, 0, 0])
NAN_SHARE = put(shares(), (1, 0), torch.nan)
TERMS = ("compactness", "balance", "distribution")
OUT_OF_RANGE = r"`target` must be in \[0, 5\) or `ignore_index` = -100, got {} in row {}"
NO_SHARES = r"`target` must hold class shares.* sum of 1.*in row {}"
OTHER_TYPE = r"`target` must be int64 class indices or floating-point class shares, got torch\.{}"
OTHER_DEVICE = r"`target` must be on cpu, the device of `.*`, got meta"
LABEL_SHAPE = r"`target` must have shape \(N,\) with N = 6, got \({}\)"
SHARE_SHAPE = r"`target` must have shape \(N, K\) with N = 6 and K = 5, got \({}\)"


@each_of(LABELED)
@pytest.mark.parametrize(
    ("target", "error", "match"),
    [
        pytest.param(put(labels(), 3, 5), ValueError, OUT_OF_RANGE.format(5, 3), id="too large"),
        pytest.param(put(labels(), 2, -1), ValueError, OUT_OF_RANGE.format(-1, 2), id="negative"),
        pytest.param(labels().int(), TypeError, OTHER_TYPE.format("int32"), id="int32"),
        pytest.param(labels() > 0, TypeError, OTHER_TYPE.format("bool"), id="bool"),
        pytest.param([0] * 6, TypeError, r"`target` must be a torch\.Tensor, got list", id="list"),
        pytest.param(labels()[:, None], ValueError, LABEL_SHAPE.format("6, 1"), id="(N, 1)"),
        pytest.param(labels()[1:], ValueError, LABEL_SHAPE.format("5,"), id="(N - 1,)"),
        pytest.param(labels()[0], ValueError, LABEL_SHAPE.format(""), id="()"),
        pytest.param(shares()[:, :4], ValueError, SHARE_SHAPE.format("6, 4"), id="(N, K - 1)"),
        pytest.param(shares()[:1], ValueError, SHARE_SHAPE.format("1, 5"), id="(1, K)"),
        pytest.param(shares()[0], ValueError, SHARE_SHAPE.format("5,"), id="(K,)"),
        pytest.param(labels().double(), ValueError, SHARE_SHAPE.format("6,"), id="float labels"),
        pytest.param(shares() * 1.1, ValueError, NO_SHARES.format(0), id="sum of 1.1"),
        pytest.param(shares() * 0.9, ValueError, NO_SHARES.format(0), id="sum of 0.9"),
        pytest.param(BELOW_0, ValueError, NO_SHARES.format(4), id="below 0"),
        pytest.param(NAN_SHARE, ValueError, NO_SHARES.format(1), id="NaN share"),
        pytest.param(labels().to("meta"), ValueError, OTHER_DEVICE, id="meta"),
        pytest.param(shares().to("meta"), ValueError, OTHER_DEVICE, id="meta shares"),
    ],
)
def test_rejects_a_target(
    case: LossCase, target: object, error: type[Exception], match: str
) -> None:
    check_rejected(case, error, match, target=target)


@each_of(LABELED)
def test_rejects_by_the_ignore_index(case: LossCase) -> None:
    with pytest.raises(TypeError, match="`ignore_index` must be an integer, got float"):
        case.apply(case.inputs(), labels(), case.drawn_centers(), ignore_index=0.5)
    with pytest.raises(ValueError, match=r"`ignore_index` = -1, got -100 in row 0"):
        case.run(case.new(ignore_index=-1), case.inputs(), labels())


@pytest.mark.parametrize("name", JOINT.axes)
def test_a_rejected_batch_moves_no_center(name: str) -> None:
    loss, inputs = JOINT.new(), JOINT.inputs(seed=1)
    JOINT.run(loss, JOINT.inputs(), labels())
    before = state_of(loss)
    with pytest.raises(ValueError, match="must have shape"):
        JOINT.run(loss, inputs | {name: inputs[name][..., 1:]}, labels())
    assert_same_state(loss.state_dict(), before)


@each_of(CENTERED)
@pytest.mark.parametrize(
    ("option", "value", "error", "match"),
    [
        ("sizes", 0, ValueError, "at least 1, got 0"),
        ("sizes", 2.0, TypeError, r"an integer, got float: 2\.0"),
        ("sizes", True, TypeError, "an integer, got bool: True"),
        ("center_update", "sgd", ValueError, "one of 'alpha', 'ema', 'gradient', got 'sgd'"),
        ("center_rate", -0.1, ValueError, r".* in \[0, 1\], got -0\.1"),
        ("center_rate", 1.1, ValueError, r".* in \[0, 1\], got 1\.1"),
        ("center_rate", float("nan"), ValueError, r".* in \[0, 1\], got nan"),
        ("center_rate", float("inf"), ValueError, r".* in \[0, 1\], got inf"),
        ("center_rate", "0.5", TypeError, r"a number, got str: '0\.5'"),
    ],
)
def test_rejects_options(
    case: LossCase, option: str, value: Any, error: type[Exception], match: str
) -> None:
    for name in case.sizes if option == "sizes" else (option,):
        with pytest.raises(error, match=f"`{name}` must be {match}"):
            case.new(**{name: value})


@pytest.mark.parametrize("value", [-1e-4, float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        *((f"lambda_{term}", "finite number >= 0") for term in TERMS),
        ("label_smoothing", r"finite number in \[0, 1\]"),
    ],
)
def test_rejects_weights(name: str, allowed: str, value: Any) -> None:
    given = JOINT.inputs(), labels(), JOINT.drawn_centers()
    for call in (JOINT.new, partial(JOINT.apply, *given)):
        with pytest.raises(ValueError, match=f"`{name}` must be a {allowed}, got {value}"):
            call(**{name: value})
        with pytest.raises(ValueError, match=r"`label_smoothing` must be .* in \[0, 1\], got 1\.1"):
            call(label_smoothing=1.1)


def test_rejects_what_is_no_output_of_a_head() -> None:
    logits, centers = JOINT.inputs()["logits"], JOINT.drawn_centers()
    for output, kind in ((logits, "Tensor"), ((logits,), "tuple"), (None, "NoneType")):
        for call in (JOINT.new(), partial(JOINT.function, **centers)):
            with pytest.raises(TypeError, match=f"`output` must be an FDRLOutput, got {kind}"):
                call(output, labels())
