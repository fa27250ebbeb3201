"""A model out of a run's folder says what the trained one said."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fer.data import Database
from fer.model import build, checkpoint
from fer.model.build import TrainedModel, load_trained
from fer.options import Options
from fer.training import augment
from fer.training.run import Run
from small_runs import ALONE, assert_same, make_run, options_of, start_run, train_run

pytestmark = pytest.mark.usefixtures("small")


def said(model: torch.nn.Sequential, run: Run) -> Tensor:
    """Return the logits of the test faces."""
    images = augment.crop_for_evaluation(run.database.splits["test"].images, run.options.image_size)
    return build.get_logits(build.compute_outputs(model, images)[1])


def assert_says(loaded: TrainedModel, model: Any, run: Run) -> None:
    assert not loaded.model.training
    assert torch.equal(said(loaded.model, run), said(model.eval(), run))


SHAPES: list[dict[str, Any]] = [{"attach": "attention"}, {"attach": "places"}]
SHAPES += [{"small_stem": True}, {"head": "linear"}, {"last_stride": 1}]
FORMS: list[dict[str, Any]] = [{}, {"head": "linear"}, {"head": "plain"}, {"intra": False}]
FORMS += [{"inter": False}, {"reduction": "sum"}, {"self_feature": "message"}]
FORMS += [{"batch_norm": True, "head": head} for head in ("fdrl", "linear", "plain")]
FORMS += [{"backbone": "resnet10", "width": 8, **shape} for shape in SHAPES]


@pytest.mark.parametrize("changes", FORMS, ids=str)
def test_it_says_what_the_run_said(changes: dict[str, Any], tmp_path: Path) -> None:
    run = train_run(tmp_path / "run", epochs=1, **changes)
    loaded = load_trained(tmp_path / "run")
    assert_says(loaded, run.model, run)
    assert loaded.classes == run.database.classes
    assert loaded.options == run.options
    assert (loaded.gray, loaded.epoch) == (False, 1)


@pytest.mark.parametrize(("last_stride", "places"), [(1, 36), (2, 9)])
def test_the_last_stride_is_that_of_the_options(last_stride: int, places: int) -> None:
    shape: dict[str, Any] = {"backbone": "resnet10", "width": 8, "small_stem": True}
    backbone, _ = build.make_backbone(Options(attach="places", last_stride=last_stride, **shape))
    assert backbone(torch.zeros(2, 3, 42, 42)).shape == (2, 64 * places)


def test_it_is_the_average_of_the_epoch_asked_for_and_needs_neither_faces_nor_first_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError):
        load_trained(tmp_path)
    monkeypatch.setattr("fer.training.run.find_best_epoch", lambda history: history[0])
    folder = tmp_path / "run"
    run = train_run(folder, epochs=2, ema=0.5)
    moved = {"dataset": "rafdb", "data": "gone", "backbone_weights": "gone.pt"}
    checkpoint.write_json(folder / "config.json", run.options.to_dict() | moved)
    best, last = (load_trained(folder, which) for which in ("best", "last"))
    assert (best.epoch, last.epoch) == (1, 2)
    assert run.ema is not None
    assert_says(last, run.ema.module, run)
    for other in (best.model, run.model.eval()):
        assert not torch.equal(said(last.model, run), said(other, run))


def test_gray_faces_are_remembered(tmp_path: Path) -> None:
    faces = make_run().database.splits
    gray = {split: replace(each, images=each.images[:, :1]) for split, each in faces.items()}
    run = Run(options_of(epochs=1), Database("gray", tuple("abcdefg"), gray), ALONE)
    checkpoint.write_json(tmp_path / "config.json", run.options.to_dict())
    run.open(tmp_path, quiet=True).train(quiet=True)
    loaded = load_trained(tmp_path)
    assert loaded.gray
    assert loaded.classes == tuple("abcdefg")
    assert_says(loaded, run.model, run)


def test_without_intra_weights_there_is_nothing_to_balance() -> None:
    criterion = build.make_criterion(options_of(intra=False), 7)
    assert (criterion.lambda_balance, criterion.lambda_distribution) == (0, 0)
    assert build.make_criterion(options_of(), 7).lambda_balance == 1


@pytest.mark.parametrize("changes", [{}, {"num_latents": 3, "latent_dim": 16}], ids=str)
def test_the_plain_head_has_as_many_parameters_as_fdrl(changes: dict[str, Any]) -> None:
    options = [options_of(head=head, **changes) for head in ("fdrl", "plain")]
    fdrl, plain = (build.make_model(each, 7)[1] for each in options)
    more = sum(each.numel() for each in plain.parameters())
    more -= sum(each.numel() for each in fdrl.parameters())
    # To within half of what one more unit in the middle has.
    assert abs(more) <= (512 + 1 + options[0].latent_dim) / 2
    # Or the width that was asked for.
    given = build.make_model(replace(options[1], hidden=40), 7)[1]
    assert given.get_parameter("0.weight").shape == (40, 512)


def test_frozen_centers_stay_where_chance_put_them(tmp_path: Path) -> None:
    run = start_run(tmp_path / "run", epochs=1, center_update="frozen")
    before = deepcopy(run.criterion.state_dict())
    run.train(quiet=True)
    assert_same(run.criterion.state_dict(), before)
    for centers in (run.criterion.compactness.centers, run.criterion.distribution.centers):
        assert centers.value.std() > 0.5


@pytest.mark.parametrize("head", ["fdrl", "linear", "plain"])
def test_the_last_layer_can_predict_from_what_is_normalized(head: str) -> None:
    torch.manual_seed(0)
    model = build.make_model(options_of(head=head, batch_norm=True), 7)
    norms = [each for each in model[1].modules() if isinstance(each, torch.nn.BatchNorm1d)]
    assert len(norms) == 1
    seen: list[Tensor] = []
    norms[0].register_forward_hook(lambda _, taken, made: seen.extend((*taken, made)))
    feature, output = build.compute_outputs(model, torch.randn(8, 3, 32, 32))
    assert torch.equal(seen[0], feature if head == "fdrl" else seen[0])
    last = [each for each in model[1].modules() if isinstance(each, torch.nn.Linear)][-1]
    torch.testing.assert_close(build.get_logits(output), last(seen[1]))
