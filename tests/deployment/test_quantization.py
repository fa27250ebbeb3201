"""int8: what tools that look for `nn.Linear` find in a head, and that the head lets them."""

import copy
import warnings

import pytest
import torch
from torch import nn

from comparing import assert_close
from fdrl_layers import FDRLHead, FDRLOutput
from strategies import normal


def head() -> FDRLHead:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return FDRLHead(512, 7, reduction="mean").eval()


def check_only_the_classifier_is_rounded(found: FDRLOutput, expected: FDRLOutput) -> None:
    assert_close("embedding", found.embedding, expected.embedding)
    error = (found.logits - expected.logits).norm() / expected.logits.norm()
    assert 1e-4 < error < 0.02


@torch.no_grad()
def test_torch_quantizes_the_classifier() -> None:
    # It will be removed from torch one day, and has no kernels on some processors.
    tool = pytest.importorskip("torch.ao.quantization")
    if torch.backends.quantized.engine == "none":
        pytest.skip("this torch has no int8 kernels")
    model, x = head(), normal(16, 512, seed=1, dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = tool.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
        found = quantized(x)
    assert isinstance(found, FDRLOutput)
    check_only_the_classifier_is_rounded(found, model(x))


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")
def test_torchao_quantizes_the_classifier() -> None:
    torchao = pytest.importorskip("torchao.quantization")
    model, x = head(), normal(16, 512, seed=1, dtype=torch.float32)
    quantized = copy.deepcopy(model)
    torchao.quantize_(quantized, torchao.Int8DynamicActivationInt8WeightConfig())
    plain = {name for name, p in quantized.named_parameters() if type(p) is nn.Parameter}
    assert {name for name, _ in quantized.named_parameters()} - plain == {"classifier.weight"}
    check_only_the_classifier_is_rounded(quantized(x), model(x))


def test_that_is_a_thousandth_of_the_weights() -> None:
    sizes = {name: parameter.numel() for name, parameter in head().named_parameters()}
    assert round(1000 * sizes["classifier.weight"] / sum(sizes.values())) == 1


@pytest.mark.parametrize("num_leading_axes", [0, 1, 2])
def test_what_replaces_the_classifier_is_called(num_leading_axes: int) -> None:
    model, replaced = head(), head()
    assert replaced.classifier is not None
    # As an adapter does: it takes the place of a layer and is not one.
    replaced.classifier = nn.Sequential(replaced.classifier, nn.Tanh())  # type: ignore[assignment]
    x = normal(*(3, 2)[:num_leading_axes], 512, seed=1, dtype=torch.float32).requires_grad_()
    expected, found = model(x), replaced(x)
    assert_close("logits", found.logits, expected.logits.tanh())
    assert torch.equal(found.embedding, expected.embedding)
    found.logits.sum().backward()
    gradients = [p.grad for p in replaced.parameters()]
    assert all(gradient is not None and gradient.any() for gradient in gradients)
