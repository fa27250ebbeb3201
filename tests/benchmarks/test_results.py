"""Every result file that is kept is what the benchmarks write, that of the examples' engine too."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import schema, throughput as engine
from benchmarks.machine import describe
from benchmarks.schema import ORACLE, Measured, Results, Speed, Throughput, WholeStep, read, write
from small_runs import ALONE, options_of, use_small_backbone

KINDS = ("operators", "whole-step", "throughput")
FILES = [file for kind in KINDS for file in sorted(schema.RESULTS.glob(f"*/{kind}-*.json"))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_results_are_valid(file: Path) -> None:
    results = read(file)
    assert file.parent.name == results.machine.slug()
    assert not results.machine.commit.endswith("+")
    if isinstance(results, Results):
        assert file.name == f"operators-{results.mode}-{results.dtype}.json"
        assert {row.version for row in results.measured} >= {results.baseline, "ours", "gemm"}
        assert not any(row.refused for row in results.measured if row.version == "ours")
    elif isinstance(results, Throughput):
        graph = "graph-" if "one CUDA graph a step" in results.settings else ""
        assert file.name == f"throughput-{graph}{results.dtype}.json"
        assert [speed.image_size for speed in results.speeds] == [64, 224]
    else:
        graph = "graph-" if results.graph else ""
        assert file.name == f"whole-step-{graph}{results.dtype}.json"


def row(**changes: Any) -> Measured:
    triple = (1.0, 2.0, 3.0)
    given = Measured("ours", 64, triple, triple, triple, 2.5, 80, 14340.0, 0, 0.0, 0.0, 0, "")
    return dataclasses.replace(given, **changes)


def results(*rows: Measured, **changes: Any) -> Results:
    return Results("training", "float32", 31, "loop", describe(), rows or (row(**changes),))


def throughput(**changes: Any) -> Throughput:
    given = Speed(64, (90.0, 100.0, 110.0), (0.01, 0.02, 0.03), (900.0, 1000.0, 1100.0), 0.0)
    speed = dataclasses.replace(given, **changes)
    return Throughput("ResNet-18, FDRL head", 64, "float32", "", 3, describe(), (speed,))


def whole_step(graph: bool = False, *heads: str) -> WholeStep:
    step: dict[str, tuple[float, ...]] = dict.fromkeys(("linear", *heads, "ours"), (1.0,))
    return WholeStep("resnet18", 224, 64, "float32", 7, graph, describe(), step, step)


def plain(content: Results | WholeStep | Throughput) -> tuple[type, str]:
    """What tells contents apart; what is read has lists for tuples."""
    return type(content), json.dumps(dataclasses.asdict(content))


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    refused = row(version="batched", seconds=(), refused="off by 3")
    for content in (results(row(), refused), whole_step(), whole_step(graph=True), throughput()):
        write(file, content)
        assert plain(read(file)) == plain(content)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"format": 3}, "`format` must be 1 or 2"),
        ({"baseline": 1}, "`baseline` must be"),
        ({"kind": "Other"}, "`kind` must be Results, WholeStep or Throughput"),
        ({"mode": "sleeping"}, "`mode` must be training or inference"),
        ({"rounds": "many"}, "`rounds` must be"),
        ({"surprise": 1}, "Results wants"),
        ({"measured": []}, "`measured` must be a list"),
        ({"machine": {"cpu": "x"}}, "Machine wants"),
    ],
)
def test_rejects_what_it_did_not_write(tmp_path: Path, changes: dict[str, Any], match: str) -> None:
    file = tmp_path / "results.json"
    write(file, results())
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(ValueError, match=match):
        read(file)


def test_the_loop_of_the_first_format_keeps_a_name_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    write(file, results(row(version="loop"), row(version="loop compiled"), row()))
    old = json.loads(file.read_text()) | {"format": 1}
    del old["baseline"]
    for each in old["measured"]:
        del each["busy"], each["gpu_kernels"]
    file.write_text(json.dumps(old))
    found = read(file)
    assert isinstance(found, Results)
    assert found.baseline == ORACLE
    assert [each.version for each in found.measured] == [ORACLE, f"{ORACLE} compiled", "ours"]
    assert {(each.busy, each.gpu_kernels) for each in found.measured} == {(0.0, 0)}
    write(file, whole_step(False, "loop"))
    file.write_text(file.read_text().replace('"format": 2', '"format": 1'))
    whole = read(file)
    assert isinstance(whole, WholeStep)
    assert list(whole.seconds) == list(whole.added) == ["linear", ORACLE, "ours"]


def test_a_whole_step_of_before_had_no_graph(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    write(file, whole_step(graph=True))
    content = json.loads(file.read_text())
    del content["graph"]
    file.write_text(json.dumps(content))
    assert plain(read(file)) == plain(whole_step())


@pytest.mark.parametrize(
    ("make", "changes", "match"),
    [
        (results, {"seconds": ()}, "either timed or refused"),
        (results, {"refused": "wrong"}, "either timed or refused"),
        (results, {"seconds": (3.0, 2.0, 1.0)}, "percentiles must rise"),
        (throughput, {"training": (3.0, 2.0, 1.0)}, "`training` must be percentiles that rise"),
        (throughput, {"data": (1.0,)}, "`data` must be percentiles that rise"),
        (throughput, {"waiting": (0.1, 0.2, 1.5)}, "`waiting` must be a share"),
        (throughput, {"waiting": (-0.1, 0.2, 0.5)}, "`waiting` must be percentiles"),
    ],
)
def test_rejects_figures_that_cannot_be(
    tmp_path: Path, make: Callable[..., Any], changes: dict[str, Any], match: str
) -> None:
    file = tmp_path / "results.json"
    write(file, make(**changes))
    with pytest.raises(ValueError, match=match):
        read(file)


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    use_small_backbone(monkeypatch)


@pytest.mark.usefixtures("_small")
def test_the_throughput_is_written_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ["--sizes", "24", "32", "--batch", "8", "--rounds", "2", "--threads", "1"]
    engine.main([*said, "--out", str(tmp_path)])
    found = read(tmp_path / "throughput-float32.json")
    assert isinstance(found, Throughput)
    assert [speed.image_size for speed in found.speeds] == [24, 32]
    assert (found.batch, found.rounds, found.settings) == (8, 2, "cache ram")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["24 pixels", "32 pixels"]


@pytest.mark.usefixtures("_small")
def test_the_data_path_alone_is_faster_than_training_with_it() -> None:
    speed = engine.measure(options_of(epochs=3), 2, ALONE)
    assert speed.data[1] > speed.training[1] > 0
    assert 0 < speed.waiting[1] < 1
    assert speed.recipe_seconds == 0


def test_what_the_recipe_would_take_is_said_where_it_was_measured() -> None:
    speed = Speed(224, (8000.0, 8180.0, 8200.0), (0.0, 0.0, 0.0), (1.0, 2.0, 3.0), 60.0)
    assert engine.format_speed(speed).endswith("; 40 epochs of 12,271 images in 60 s")
