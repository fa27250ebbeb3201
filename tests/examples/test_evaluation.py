from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fer.data import FaceSet
from fer.evaluation import predictions as evaluation
from fer.evaluation.predictions import Evaluation, evaluate
from fer.training.ranks import Ranks
from small_runs import ALONE, batch_of, make_run, options_of

pytestmark = pytest.mark.usefixtures("small")


def trained(**changes: Any) -> tuple[nn.Sequential, FaceSet]:
    """Return a model whose batch normalization has met data, and test faces."""
    run = make_run(**changes)
    run.model(batch_of(run)[0])
    return run.model, run.database.splits["test"]


def arrays(found: Evaluation) -> dict[str, Any]:
    return {field.name: getattr(found, field.name) for field in fields(found)}


def assert_close(
    got: Evaluation, want: Evaluation, *, rtol: float = 1e-4, atol: float = 1e-6
) -> None:
    for name, value in arrays(want).items():
        if value is None:
            assert getattr(got, name) is None
        else:
            np.testing.assert_allclose(getattr(got, name), value, rtol, atol)


def test_what_is_said_of_a_face_depends_on_no_other_face() -> None:
    model, faces = trained()
    whole = evaluate(model, faces, options_of(), ALONE)
    assert len(whole.labels) == len(faces) == 16
    order = torch.randperm(len(faces), generator=torch.Generator().manual_seed(0))
    shuffled = evaluate(model, faces.select(order), options_of(), ALONE)
    moved = {
        name: value if name == "inter_weights" else value[order.numpy()]
        for name, value in arrays(whole).items()
    }
    assert_close(Evaluation(**moved), shuffled)
    alone = evaluate(model, faces, options_of(batch_size=1), ALONE)
    assert_close(alone, whole)
    assert shuffled.scores.accuracy == whole.scores.accuracy


@dataclass(frozen=True)
class Part(Ranks):
    """One of several processes, which hears of the others what was said before."""

    heard: tuple[Any, ...] = ()

    def gather(self, value: Any) -> list[Any]:
        return [*self.heard, value]


@pytest.mark.parametrize("world", [2, 3, 5])
def test_each_process_takes_its_own_faces_and_none_is_counted_twice(world: int) -> None:
    model, faces = trained()
    faces = faces.select(torch.arange(13))
    whole = evaluate(model, faces, options_of(), ALONE)
    ranks = [Part(rank, world, ALONE.device) for rank in range(world)]
    parts = [evaluate(model, faces, options_of(), each) for each in ranks]
    for name in ("probabilities", "embedding", "intra_weights"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_allclose(joined, getattr(whole, name), rtol=1e-4, atol=1e-6)


def test_processes_without_a_face_add_nothing() -> None:
    assert Ranks(0, 2, ALONE.device).local_slice(1) == slice(0, 0)
    model, faces = trained()
    one = faces.select(torch.arange(1))
    found = evaluate(model, one, options_of(), Part(1, 2, ALONE.device, ({},)))
    assert_close(found, evaluate(model, one, options_of(), ALONE))


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training: bool) -> None:
    model, faces = trained()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluate(model.train(training), faces, options_of(), ALONE)
    assert model.training is training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("head", ["fdrl", "linear"])
def test_what_either_head_says_comes_back_with_small_pictures(head: str, tmp_path: Path) -> None:
    model, faces = trained(head=head)
    found = evaluate(model, faces, options_of(), ALONE)
    assert (found.intra_weights is None) == (found.inter_weights is None) == (head == "linear")
    assert found.embedding.shape == (16, 512 if head == "linear" else 8)
    np.testing.assert_allclose(found.probabilities.sum(1), 1, rtol=1e-5)
    evaluation.save_evaluation(tmp_path / "evaluation.pt", found, faces, ("AU1", "AU2"))
    kept = evaluation.read_evaluation(tmp_path / "evaluation.pt")
    assert_close(kept.evaluation, found, rtol=0, atol=0)
    assert kept.units == ("AU1", "AU2")
    assert kept.faces.names == faces.names
    assert kept.faces.images.shape == (16, 3, evaluation.THUMBNAIL, evaluation.THUMBNAIL)
    assert kept.faces.units is not None
    torch.testing.assert_close(kept.faces.units, faces.units, rtol=0, atol=0)
    (tmp_path / "evaluation.pt").unlink()
    with pytest.raises(FileNotFoundError, match="the run has not ended yet"):
        evaluation.read_evaluation(tmp_path / "evaluation.pt")
