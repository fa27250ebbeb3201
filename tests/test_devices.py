"""Everything stays on the device of what it is given: shown on one that has no memory."""

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fdrl_layers
import layer_cases
import loss_cases
from devices import OneDevice, each_of
from fdrl_layers import FDRLLoss, LogitsOnly, attach_head, latent_cam
from fdrl_layers.ops.reference.head import HeadOutput
from gradients import upstream, weighted_sum
from head_forms import FORMS, inputs_of, stacked
from layer_cases import LayerCase
from loss_cases import LossCase, each_target_of, wanting
from strategies import normal, parameters_for

THERE = "meta"
PACKAGE = Path(fdrl_layers.__file__).parent


def there(cases: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(replace(case, device=THERE) for case in cases)


def described(tensors: dict[str, Tensor]) -> dict[str, tuple[Any, ...]]:
    return {name: (value.shape, value.dtype) for name, value in tensors.items()}


def with_gradients(
    device: str, run: Callable[[], dict[str, Tensor]], inputs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The outputs and the gradients of a weighted sum of them, all of it on one device."""
    weights = upstream(run())
    with OneDevice(device):
        outputs = run()
        total = weighted_sum(outputs, weights)
        found = torch.autograd.grad(total, list(inputs.values()), materialize_grads=True)
    return outputs | {f"d {name}": each for name, each in zip(inputs, found, strict=True)}


@each_of(there(layer_cases.CASES))
@pytest.mark.parametrize("lead", [(4,), (0,), (), (2, 3)], ids=str)
def test_a_layer_stays_where_its_input_is(case: LayerCase, lead: tuple[int, ...]) -> None:
    found = {}
    for each in (case, replace(case, device="cpu")):
        layer, x = each.new(dtype=torch.float64), each.input(lead=lead).requires_grad_()
        run = partial(each.run, layer, x)
        found[each.device] = described(with_gradients(each.device, run, each.inputs(layer, x)))
    assert found[THERE] == found["cpu"]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_form_of_the_head_stays_there(form: Any, dtype: torch.dtype) -> None:
    of = layer_cases.SMALL
    parameters = {k: v.to(THERE) for k, v in parameters_for(of, 0).items()}
    given = stacked(parameters, dtype)
    x = normal(of.N, of.P, seed=0, dtype=dtype, device=THERE).requires_grad_()

    def run() -> dict[str, Tensor]:
        outputs = form(x, given, 0.25, "share")
        return dict(zip(HeadOutput._fields, outputs, strict=True))

    with_gradients(THERE, run, inputs_of(x, given))


@each_target_of(there(loss_cases.CASES))
@pytest.mark.parametrize("rule", loss_cases.RULES)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_loss_stays_where_its_input_is(
    case: LossCase, target_of: Any, rule: str, training: bool, dtype: torch.dtype
) -> None:
    loss = case.new(dtype=torch.float32, center_update=rule).train(training)
    inputs = wanting({name: value.to(dtype) for name, value in case.inputs().items()})
    target = target_of()
    for _ in range(2):  # at the start and after it
        with_gradients(THERE, lambda: case.run(loss, inputs, target), inputs)
    assert all(value.device.type == THERE for value in loss.state_dict().values())


@each_target_of(there(loss_cases.CASES))
def test_a_function_of_a_loss_stays_where_its_input_is(case: LossCase, target_of: Any) -> None:
    inputs, centers = wanting(case.inputs()), wanting(case.drawn_centers())
    target = target_of()
    with_gradients(THERE, lambda: case.apply(inputs, target, centers), inputs | centers)


def test_a_model_stays_where_its_images_are() -> None:
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
    model = attach_head(backbone.to(THERE), 7, latent_dim=6, num_latents=3)
    criterion = FDRLLoss(7, latent_dim=6, num_latents=3, device=THERE)
    images = torch.empty(4, 3, 12, 12, device=THERE)
    target = torch.empty(4, dtype=torch.int64, device=THERE)
    parameters = dict(model.named_parameters())
    assert {each.device.type for each in parameters.values()} == {THERE}
    with_gradients(THERE, lambda: vars(criterion(model(images), target)), parameters)
    with OneDevice(THERE):
        maps = latent_cam(model, images, 1, backbone[2])
        logits = LogitsOnly(model.eval())(images)
    assert (maps.shape, logits.shape) == ((4, 12, 12), (4, 7))


# The checks can fail.


@pytest.mark.parametrize(
    "mixed",
    [
        lambda x: torch.zeros(x.shape),
        lambda x: x + torch.tensor(1.0),  # torch itself takes this for a number
        lambda x: torch.where(x > 0, x, torch.scalar_tensor(0.0)),
    ],
    ids=["made elsewhere", "number elsewhere", "chosen elsewhere"],
)
def test_what_leaves_the_device_is_refused(mixed: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(AssertionError, match="on cpu"), OneDevice(THERE):
        mixed(torch.empty(3, device=THERE))


FACTORIES = (
    *("arange", "as_tensor", "asarray", "empty", "empty_strided", "eye", "from_numpy", "full"),
    *("linspace", "logspace", "normal", "ones", "rand", "randint", "randn", "randperm"),
    *("scalar_tensor", "tensor", "tril_indices", "triu_indices", "zeros"),
)


def made_anywhere(source: str) -> Iterator[str]:
    """Calls that make a tensor on torch's default device."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called, given = ast.unparse(node.func), {each.arg for each in node.keywords}
            made = called.startswith("torch.") and node.func.attr in FACTORIES
            if made and not given & {"device", None}:
                yield f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.stem)
def test_no_tensor_is_made_on_the_default_device(path: Path) -> None:
    assert not list(made_anywhere(path.read_text()))


def test_the_look_at_the_source_can_fail() -> None:
    source = "torch.zeros(3), torch.ones(3, device=d), torch.full((), 1, **like), x.new_zeros(3)"
    assert list(made_anywhere(source)) == ["line 1: torch.zeros(3)"]


def test_numbers_of_the_tests_are_drawn_alike_on_every_device() -> None:
    here = {"x": torch.ones(3, 2), "y": torch.ones(4, dtype=torch.bfloat16)}
    drawn = upstream({name: each.to(THERE) for name, each in here.items()})
    assert {each.device.type for each in drawn.values()} == {THERE}
    assert described(drawn) == described(upstream(here))
