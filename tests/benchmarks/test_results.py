"""Every result file that is kept is what the benchmarks write."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.machine import describe
from benchmarks.schema import RESULTS, Measured, Results, WholeStep, read, write

FILES = sorted(RESULTS.glob("*/operators-*.json")) + sorted(RESULTS.glob("*/whole-step-*.json"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_results_are_valid(file: Path) -> None:
    results = read(file)
    assert file.parent.name == results.machine.slug()
    assert not results.machine.commit.endswith("+")
    if isinstance(results, Results):
        assert file.name == f"operators-{results.mode}-{results.dtype}.json"
        assert {row.version for row in results.measured} >= {"loop", "ours", "gemm"}
        assert not any(row.refused for row in results.measured if row.version == "ours")
    else:
        assert file.name == f"whole-step-{results.dtype}.json"


def row(**changes: Any) -> Measured:
    triple = (1.0, 2.0, 3.0)
    given = Measured("ours", 64, triple, triple, triple, 2.5, 80, 14336.0, 0, 0.0, "")
    return dataclasses.replace(given, **changes)


def results(*rows: Measured) -> Results:
    return Results("training", "float32", 31, describe(), rows or (row(),))


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    refused = row(version="batched", seconds=(), refused="off by 3")
    write(file, results(row(), refused))
    found = read(file)
    assert isinstance(found, Results)
    assert [each.version for each in found.measured] == ["ours", "batched"]
    step = WholeStep("resnet18", 224, 64, "float32", 7, describe(), {"linear": (1.0,)}, {})
    write(file, step)
    assert isinstance(read(file), WholeStep)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"format": 2}, "`format` must be 1"),
        ({"kind": "Other"}, "`kind` must be Results or WholeStep"),
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


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"seconds": ()}, "either timed or refused"),
        ({"refused": "wrong"}, "either timed or refused"),
        ({"seconds": (3.0, 2.0, 1.0)}, "percentiles must rise"),
    ],
)
def test_rejects_rows_that_cannot_be(tmp_path: Path, changes: dict[str, Any], match: str) -> None:
    file = tmp_path / "results.json"
    write(file, results(row(**changes)))
    with pytest.raises(ValueError, match=match):
        read(file)
