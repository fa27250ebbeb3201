"""What latents mean, on evaluations that were made up to mean something or nothing."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.studies import __main__ as command, meaning
from benchmarks.studies.meaning import (
    GROUP_SIZE,
    ROWS as MEANT,
    measure,
    measure_purity,
    read_meanings,
)
from benchmarks.studies.questions import LINEAR_DRAWN
from benchmarks.studies.train import run_folder
from fer.evaluation.predictions import read_evaluation
from report_runs import plain_faces, with_units, write_run


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place, real = tmp_path_factory.mktemp("runs"), plain_faces(420)
    drawn = with_units(real)
    made = {name: write_run(place / name, drawn if "drawn" in name else real) for name in MEANT}
    return made | {"baseline": write_run(place / "baseline", drawn, head="linear")}


def test_latents_that_follow_units_say_more_than_chance(folders: dict[str, Path]) -> None:
    models = {name: folders[name] for name in MEANT}
    found = measure(models, folders["baseline"], seed=3)
    assert found.seed == 3
    assert found.latents.keys() == {name for name in MEANT if name.startswith("drawn")}
    assert found.latents["drawn"] > 3 * found.shuffled
    assert found.latents["drawn"] > found.baseline
    assert found.units["drawn"] == 4
    assert found.groups.keys() == found.chance.keys() == MEANT.keys()


def test_a_group_is_as_pure_as_its_faces(folders: dict[str, Path]) -> None:
    of = read_evaluation(folders["FER+"] / "evaluation.pt")
    labels = of.evaluation.labels
    # The first latent knows a class, and the second the first half of each of two.
    one = (labels == 2).astype(np.float32)
    two = np.zeros_like(one)
    for label in (0, 1):
        two[np.flatnonzero(labels == label)[: GROUP_SIZE // 2]] = 1
    assert measure_purity(of, np.stack([one, two], axis=1)) == pytest.approx((1 + 0.5) / 2)


def test_the_command_keeps_what_it_measured(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, row in {**MEANT, "baseline": LINEAR_DRAWN}.items():
        for seed in (1, 2):
            shutil.copytree(folders[name], run_folder(row, "cpu", seed, tmp_path / "runs"))
    monkeypatch.setattr(meaning.measure_seeds, "__defaults__", (tmp_path / "measured",))
    places = ["--runs", tmp_path / "runs", "--results", tmp_path / "results"]
    for seed in (2, 1):
        given = ["meaning", "--data", "x", "--scale", "cpu", "--seeds", seed, *places]
        command.main([*map(str, given)])
    first, second = read_meanings("cpu", tmp_path / "measured")
    assert (first.seed, second.seed) == (1, 2)
    assert first.groups.keys() == MEANT.keys()
