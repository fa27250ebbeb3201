from typing import Any
from unittest import mock

import pytest
import torch

from fer.training import precision
from small_runs import options_of

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("amp", "device", "has_bfloat16", "wanted"),
    [
        ("auto", CPU, True, torch.float32),
        ("auto", GPU, True, torch.bfloat16),
        ("auto", GPU, False, torch.float16),
        ("off", GPU, True, torch.float32),
        ("bf16", CPU, True, torch.bfloat16),
        ("bf16", GPU, False, torch.bfloat16),
        ("fp16", GPU, True, torch.float16),
    ],
)
def test_type_of_products(amp: str, device: torch.device, has_bfloat16: bool, wanted: Any) -> None:
    with mock.patch("torch.cuda.is_bf16_supported", return_value=has_bfloat16):
        assert precision.autocast_dtype(options_of(amp=amp), device) is wanted


def test_rejects_float16_on_a_cpu() -> None:
    with pytest.raises(ValueError, match="--amp fp16 needs a GPU"):
        precision.autocast_dtype(options_of(amp="fp16"), CPU)


@pytest.mark.parametrize(("amp", "lowered"), [("auto", False), ("off", False), ("bf16", True)])
def test_autocast_on_a_cpu_needs_no_scaler(amp: str, lowered: bool) -> None:
    with precision.autocast(options_of(amp=amp), CPU):
        assert torch.is_autocast_enabled("cpu") is lowered
        if lowered:
            assert torch.get_autocast_dtype("cpu") is torch.bfloat16
    assert not torch.is_autocast_enabled("cpu")
    assert not precision.make_gradient_scaler(options_of(amp=amp), CPU).is_enabled()
