from typing import Any

import pytest
import torch
from torch import nn

from fdrl_layers import FDRLHead, LogitsOnly

HEAD = FDRLHead(5, 7, latent_dim=6, num_latents=3)


@pytest.mark.parametrize("model", [HEAD, nn.Sequential(nn.Linear(4, 5), HEAD)], ids=["head", "net"])
def test_gives_the_logits_in_a_sequence_too(model: nn.Module) -> None:
    x = torch.randn(2, 5 if model is HEAD else 4)
    wrapped = LogitsOnly(model)
    assert torch.equal(wrapped(x), model(x).logits)
    assert torch.equal(nn.Sequential(wrapped, nn.Softmax(-1))(x), model(x).logits.softmax(-1))
    assert next(wrapped.parameters()) is next(model.parameters())


def test_exports_with_one_input_and_one_output() -> None:
    batch = ({0: torch.export.Dim("N")},)
    program = torch.export.export(LogitsOnly(HEAD), (torch.ones(2, 5),), dynamic_shapes=batch)
    x = torch.randn(4, 5)
    torch.testing.assert_close(program.module()(x), HEAD(x).logits)


def test_rejects_what_gives_no_logits() -> None:
    with pytest.raises(TypeError, match="`model` must give `logits`, got Tensor"):
        LogitsOnly(nn.Flatten())(torch.ones(2, 5))
    bad: Any = torch.ones(2)
    with pytest.raises(TypeError, match=r"`model` must be a torch.nn.Module, got Tensor"):
        LogitsOnly(bad)
