"""Joint batch normalization on one process is PyTorch's; tests/distributed/ has two."""

import pytest
import torch
from torch import Tensor, nn

from fer.training.batch_norm import JointBatchNorm2d, use_joint_batch_norm
from strategies import normal

MOMENTUM = pytest.mark.parametrize("momentum", [0.1, 0.5, 0.0, None])


def layers(momentum: float | None = 0.1) -> tuple[nn.BatchNorm2d, JointBatchNorm2d]:
    """Return PyTorch's layer and ours, with the same parameters."""
    want = nn.BatchNorm2d(3, momentum=momentum, dtype=torch.float64)
    with torch.no_grad():
        want.weight.copy_(torch.tensor([0.5, 1.0, -2.0]))
        want.bias.copy_(torch.tensor([0.0, 3.0, 1.0]))
    got = JointBatchNorm2d(3, momentum=momentum, dtype=torch.float64)
    got.load_state_dict(want.state_dict())
    return want, got


def maps(seed: int) -> Tensor:
    # A mean far from 0 shows whether the variance loses digits.
    return (normal(4, 3, 5, 6, seed=seed) * 2 + 100).requires_grad_()


@MOMENTUM
def test_values_gradients_and_statistics_are_pytorchs(momentum: float | None) -> None:
    want, got = layers(momentum)
    for seed in range(3):
        upstream = normal(4, 3, 5, 6, seed=seed + 10)
        inputs = [maps(seed), maps(seed)]
        outputs = [layer(each) for layer, each in zip((want, got), inputs, strict=True)]
        for output in outputs:
            output.backward(upstream)
        torch.testing.assert_close(outputs[1], outputs[0])
        torch.testing.assert_close(inputs[1].grad, inputs[0].grad)
    for (name, a), (_, b) in zip(got.named_parameters(), want.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)
    torch.testing.assert_close(got.state_dict(), want.state_dict())


def test_statistics_do_not_move_in_evaluation_nor_where_they_are_not_followed() -> None:
    want, got = layers()
    want(maps(0))
    got(maps(0))
    before = {name: value.clone() for name, value in got.state_dict().items()}
    torch.testing.assert_close(got.eval()(maps(1)), want.eval()(maps(1)))
    torch.testing.assert_close(got.state_dict(), before)
    got.train().track_running_stats = False
    got(maps(2))
    torch.testing.assert_close(got.state_dict(), before)


def test_maps_in_a_lower_type_are_summed_in_float32() -> None:
    want, got = nn.BatchNorm2d(2), JointBatchNorm2d(2)
    given = torch.ones(3, 2, 37, 41)
    given[:, 1, ::2] = 3.0
    # Their number, 4,551, is none of bfloat16.
    output = got(given.bfloat16())
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), want(given), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(got.running_mean, want.running_mean)
    torch.testing.assert_close(got.running_var, want.running_var)


def test_every_layer_of_a_model_is_joined_and_keeps_its_parameters() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Sequential(nn.ReLU(), nn.BatchNorm2d(2)))
    before = dict(model.named_parameters())
    use_joint_batch_norm(model, torch.device("cpu"))
    kinds = [type(each) for each in model.modules() if isinstance(each, nn.BatchNorm2d)]
    assert kinds == [JointBatchNorm2d, JointBatchNorm2d]
    assert all(parameter is before[name] for name, parameter in model.named_parameters())
