"""What a head and the joint loss give: records that are unpacked, indexed and gathered too."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import scatter_gather

from fdrl_layers import FDRLHead, FDRLLoss, FDRLLossOutput, FDRLOutput


def head_output(**options: Any) -> FDRLOutput:
    head = FDRLHead(8, 5, num_latents=3, latent_dim=4, **options)
    found = head(torch.randn(2, 8))
    assert isinstance(found, FDRLOutput)
    return found


def record_of(kind: str) -> Any:
    if kind == "loss":
        return FDRLLoss(5, num_latents=3, latent_dim=4)(head_output(), torch.tensor([0, 4]))
    return head_output(inter=kind == "head")


KIND = pytest.mark.parametrize("kind", ["head", "bare", "loss"])


@KIND
def test_is_unpacked_and_indexed_in_the_order_of_its_fields(kind: str) -> None:
    record = record_of(kind)
    fields = tuple(vars(record).values())
    assert len(record) == len(fields) == 5
    assert all(a is b for a, b in zip(record, fields, strict=True))
    assert all(record[i] is fields[i] and record[i - 5] is fields[i] for i in range(5))
    assert isinstance(record[1:3], tuple)
    assert [id(each) for each in record[1:3]] == [id(each) for each in fields[1:3]]
    with pytest.raises(IndexError):
        record[5]


def test_the_order_is_that_of_the_docs() -> None:
    logits, embedding, latents, intra_weights, inter_weights = record_of("head")
    shapes = [tuple(each.shape) for each in (logits, embedding, latents, intra_weights)]
    assert shapes == [(2, 5), (2, 4), (2, 3, 4), (2, 3)]
    assert inter_weights.shape == (2, 3, 3)
    assert record_of("bare")[-1] is None
    losses = record_of("loss")
    total, *terms = losses
    assert total is losses.total
    assert len(terms) == 4


@KIND
def test_is_no_tuple_and_equal_to_itself_alone(kind: str) -> None:
    record = record_of(kind)
    assert not isinstance(record, tuple)
    assert record != type(record)(**vars(record))
    assert len({record, record}) == 1


@KIND
@pytest.mark.parametrize("how", ["copy", "pickle"])
def test_is_copied_whole(kind: str, how: str) -> None:
    record = record_of(kind)
    plain = type(record)(*(None if each is None else each.detach() for each in record))
    found = copy.copy(plain) if how == "copy" else pickle.loads(pickle.dumps(plain))
    assert type(found) is type(record)
    for a, b in zip(found, plain, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


@pytest.mark.parametrize("kind", ["head", "bare"])
def test_data_parallel_gathers_it(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def join(device: Any, dim: int, *tensors: Tensor) -> Tensor:
        return torch.cat(tensors, dim)

    monkeypatch.setattr(scatter_gather.Gather, "apply", join)  # type: ignore[attr-defined]
    record = record_of(kind)
    found = scatter_gather.gather([record, record], torch.device("cpu"))
    assert type(found) is FDRLOutput
    assert torch.equal(found.logits, torch.cat([record.logits, record.logits]))
    assert found.latents.shape == (4, 3, 4)
    assert (found.inter_weights is None) == (kind == "bare")


@pytest.mark.parametrize("given", [torch.zeros(()), map(torch.zeros, [()])], ids=["one", "map"])
def test_a_record_of_too_few_fields_is_refused(given: Any) -> None:
    with pytest.raises(TypeError):
        FDRLLossOutput(given)  # type: ignore[call-arg]
