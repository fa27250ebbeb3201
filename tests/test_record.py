"""What a head and the joint loss give: records that are unpacked, indexed and gathered too."""

import copy
import dataclasses
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import scatter_gather
from torch.utils import _pytree as pytree

from fdrl_layers import FDRLHead, FDRLLoss, FDRLLossOutput, FDRLOutput


def record_of(kind: str) -> Any:
    head = FDRLHead(8, 5, num_latents=3, latent_dim=4, inter=kind != "bare")
    output = head(torch.randn(2, 8))
    if kind == "loss":
        return FDRLLoss(5, num_latents=3, latent_dim=4)(output, torch.tensor([0, 4]))
    return output


KIND = pytest.mark.parametrize("kind", ["head", "bare", "loss"])


@KIND
def test_is_unpacked_and_indexed_in_the_order_of_its_fields_and_is_no_tuple(kind: str) -> None:
    record = record_of(kind)
    fields = tuple(vars(record).values())
    assert len(record) == len(fields) == 5
    assert all(a is b for a, b in zip(record, fields, strict=True))
    assert all(record[i] is fields[i] and record[i - 5] is fields[i] for i in range(5))
    assert isinstance(record[1:3], tuple)
    assert [id(each) for each in record[1:3]] == [id(each) for each in fields[1:3]]
    with pytest.raises(IndexError):
        record[5]
    assert not isinstance(record, tuple)
    # By identity: tensors have no single truth.
    assert record != type(record)(**vars(record))
    assert len({record, record}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, next(iter(vars(record))), None)


def test_the_order_is_that_of_the_docs() -> None:
    sizes = {"logits": (2, 5), "embedding": (2, 4), "latents": (2, 3, 4), "intra_weights": (2, 3)}
    sizes["inter_weights"] = (2, 3, 3)
    record = record_of("head")
    assert list(vars(record)) == list(sizes)
    assert [tuple(each.shape) for each in record] == list(sizes.values())
    assert record_of("bare")[-1] is None
    losses = record_of("loss")
    total, *terms = losses
    assert total is losses.total
    assert len(terms) == 4


@KIND
@pytest.mark.parametrize("how", ["copy", "pickle", "tree"])
def test_is_copied_whole(kind: str, how: str) -> None:
    record = record_of(kind)
    plain = type(record)(*(None if each is None else each.detach() for each in record))
    if how == "tree":
        doubled = pytree.tree_map(lambda each: 2 * each, plain)
        found = pytree.tree_map(lambda each: each / 2, doubled)
        assert torch.equal(doubled[0], 2 * plain[0])
    else:
        found = copy.copy(plain) if how == "copy" else pickle.loads(pickle.dumps(plain))
    assert type(found) is type(record)
    torch.testing.assert_close(tuple(found), tuple(plain), rtol=0, atol=0)


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
