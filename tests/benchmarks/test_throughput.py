"""The benchmark of the examples' engine, on a backbone that takes no time."""

from pathlib import Path

import pytest

from benchmarks import throughput
from benchmarks.schema import Speed, Throughput, read
from small_runs import ALONE, options_of, use_small_backbone


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    use_small_backbone(monkeypatch)


def test_it_writes_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = ["--sizes", "24", "32", "--batch", "8", "--rounds", "2", "--threads", "1"]
    throughput.main([*said, "--out", str(tmp_path)])
    found = read(tmp_path / "throughput-float32.json")
    assert isinstance(found, Throughput)
    assert [speed.image_size for speed in found.speeds] == [24, 32]
    assert (found.batch, found.rounds, found.settings) == (8, 2, "cache ram")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["24 pixels", "32 pixels"]


def test_the_data_path_alone_is_faster_than_training_with_it() -> None:
    speed = throughput.measure(options_of(epochs=3), 2, ALONE)
    assert speed.data[1] > speed.training[1] > 0
    assert 0 < speed.waiting[1] < 1
    assert speed.recipe_seconds == 0


def test_what_the_recipe_would_take_is_said_where_it_was_measured() -> None:
    triple = (1.0, 2.0, 3.0)
    speed = Speed(224, (8000.0, 8180.0, 8200.0), (0.0, 0.0, 0.0), triple, 60.0)
    assert throughput.line(speed).endswith("; 40 epochs of 12,271 images in 60 s")
