"""The paper's tables as grids of runs."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

import fer_ablation
from fer.model import checkpoint
from fer.options import Options, load_options
from fer.training.run import Run
from fer.training.stopping import Stopped
from fer_ablation import TABLES, format_table
from image_trees import write_tree
from small_runs import COMMAND

# Copied from the paper: the accuracies of the rows on MMI, and on RAF-DB.
PRINTED = {
    "table1a": ("84.64 85.02 85.23 82.67 82.24", "88.75 89.02 89.47 88.82 88.63"),
    "table1b": ("82.66 83.68 85.23 84.94 83.23", "88.23 88.89 89.47 88.92 88.63"),
    "table1c": ("84.96 85.07 85.23 82.66 81.64", "89.15 88.89 89.47 88.95 88.49"),
    "table2": ("79.69 81.23 83.44 84.74 85.23", "86.93 87.71 88.76 89.34 89.47"),
    "figure4": ("85.23", "89.47"),
}
WEIGHTS = {"lambda_compactness": 1e-4, "lambda_balance": 1.0, "lambda_distribution": 1e-4}
PAPER = Options(preset="paper")
TINY = [*COMMAND, "--epochs=1"]

pytestmark = pytest.mark.usefixtures("small")


def options_of_rows(table: str) -> list[Options]:
    return [replace(PAPER, **row.overrides) for row in TABLES[table][1]]


@pytest.mark.parametrize("table", TABLES)
def test_the_papers_numbers_stand_beside_the_rows(table: str) -> None:
    printed = [row.paper_accuracies for row in TABLES[table][1] if row.paper_accuracies]
    for database, column in zip(("mmi", "rafdb"), PRINTED[table], strict=True):
        assert [f"{each[database]:.6g}" for each in printed] == column.split()


@pytest.mark.parametrize(
    ("table", "weight", "values"),
    [
        ("table1a", "lambda_compactness", [0, 1e-5, 1e-4, 1e-3, 1e-2]),
        ("table1b", "lambda_balance", [0, 0.5, 1, 1.5, 2]),
        ("table1c", "lambda_distribution", [0, 1e-5, 1e-4, 1e-3, 1e-2]),
    ],
)
def test_table_1_varies_one_weight(table: str, weight: str, values: list[float]) -> None:
    # The other two stay at the paper's values.
    found = [{name: getattr(row, name) for name in WEIGHTS} for row in options_of_rows(table)]
    assert found == [WEIGHTS | {weight: value} for value in values]
    assert [row.label for row in TABLES[table][1]] == [f"{value:g}" for value in values]


def test_table_2_adds_the_parts() -> None:
    backbone, *others = options_of_rows("table2")
    assert backbone.head == "linear"
    parts = [(row.head, row.intra, row.inter) for row in others]
    assert parts == [*product(["fdrl"], [False, True], [False, True])]


def test_figure_4_varies_the_latents_and_knows_the_value_at_nine() -> None:
    rows = TABLES["figure4"][1]
    assert [row.overrides["num_latents"] for row in rows] == [1, 3, 5, 7, 9, 11, 13]
    assert [row.label for row in rows] == ["1", "3", "5", "7", "9", "11", "13"]
    assert [row.label for row in rows if row.paper_accuracies] == ["9"]


def cells(folder: Path) -> dict[str, float]:
    """Return the accuracy in each cell's summary."""
    paths = {path.parent.relative_to(folder): path for path in folder.glob("*/seed*/summary.json")}
    summaries = {str(name): checkpoint.read_json(path) for name, path in paths.items()}
    return {name: summary["last"]["test_accuracy"] for name, summary in summaries.items()}


def test_a_table_goes_on_from_any_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, trained, train = tmp_path / "table", list[Path](), Run.train
    command = ["table2", *TINY, "--seeds", "2", "--out", str(out)]

    def train_all_but_the_fourth(run: Run, quiet: bool = False) -> dict[str, Any]:
        trained.append(run.folder)
        if len(trained) == 4:
            raise Stopped(15)
        return train(run, quiet)

    monkeypatch.setattr(Run, "train", train_all_but_the_fourth)
    with pytest.raises(SystemExit) as ended:
        fer_ablation.main(command)
    assert ended.value.code == 128 + 15
    assert not (out / "table.md").exists()
    assert len(cells(out)) == 3
    rows = fer_ablation.main(command)
    assert [row["row"] for row in rows] == [row.label for row in TABLES["table2"][1]]
    assert trained[3] == trained[4]
    assert len(trained) - 1 == len(set(trained)) == 10
    found = cells(out)
    assert len(found) == 10
    for row in rows:
        label = row["row"].replace(" ", "")
        accuracies = [found[f"{label}/seed{seed}"] for seed in (0, 1)]
        assert row["accuracies"] == accuracies
        assert row["mean"] == pytest.approx(sum(accuracies) / 2)
        assert row["deviation"] == pytest.approx(abs(accuracies[0] - accuracies[1]) / 2**0.5)
    options = [load_options(out / name) for name in found]
    wanted = {*product(["fdrl"], [False, True], [False, True], [0, 1])}
    wanted |= {("linear", True, True, 0), ("linear", True, True, 1)}
    assert {(each.head, each.intra, each.inter, each.seed) for each in options} == wanted
    assert (out / "table.png").read_bytes()[:4] == b"\x89PNG"
    (out / "all" / "seed1" / "summary.json").unlink()
    assert fer_ablation.main(command) == rows
    assert trained[11:] == [out / "all" / "seed1"]


ROWS: list[dict[str, Any]] = [
    {"row": "backbone", "accuracies": [80.0, 82.0], "mean": 81.0, "deviation": 1.4142}
    | {"printed": 86.93},
    {"row": "all", "accuracies": [90.0, 90.0], "mean": 90.0, "deviation": 0.0} | {"printed": None},
]


def test_the_table_in_markdown() -> None:
    assert format_table("table2", ROWS, replace(PAPER, dataset="rafdb", data="x", epochs=40)) == (
        "table2 on rafdb, preset paper: 40 epochs, 64 pixels, reduction mean\n\n"
        "| parts | test accuracy, % (2 seeds, mean ± deviation) | printed |\n"
        "| --- | --- | --- |\n"
        "| backbone | 81.00 ± 1.41 | 86.93 |\n"
        "| all | 90.00 ± 0.00 | - |\n"
    )


def test_a_single_seed_has_no_deviation_and_other_databases_nothing_printed() -> None:
    row = ROWS[1] | {"accuracies": [90.0]}
    text = format_table("figure4", [row], PAPER)
    assert "| M (latents) | test accuracy, % (1 seed) |\n" in text
    assert "| all | 90.00 |\n" in text


def refuses(match: str, *arguments: str) -> None:
    with pytest.raises(SystemExit, match=match):
        fer_ablation.main(list(arguments))


@pytest.fixture
def _no_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fer_ablation, "run_cell", lambda *_: 50.0)


@pytest.mark.usefixtures("_no_runs")
def test_a_folder_is_for_one_table_with_one_set_of_options(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "table")]
    fer_ablation.main(["table1a", *TINY, *out])
    fer_ablation.main(["table1a", *TINY, *out, "--seeds", "5"])
    refuses("begun with epochs = 1, and now it is 2", "table1a", *TINY, *out, "--epochs", "2")
    # Table 1 (c) has rows of the same names.
    refuses("begun with table = 'table1a', and now it is 'table1c'", "table1c", *TINY, *out)
    (tmp_path / "photos.txt").touch()
    refuses("exists and holds no table", "table2", *TINY, "--out", str(tmp_path))


def test_a_run_that_diverges_is_named(tmp_path: Path) -> None:
    command = ["table1a", *TINY, "--lr", "1e30", "--out", str(tmp_path / "table")]
    refuses("error: table1a, 0, seed 0: .* in epoch 1", *command)


def test_a_cell_may_be_a_cross_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = (f"{('happy', 'sad')[i % 2]}/S{i % 3}_{i}.png" for i in range(42))
    write_tree(tmp_path / "faces", names)
    monkeypatch.setitem(TABLES, "table2", ("parts", TABLES["table2"][1][:2]))
    out = tmp_path / "table"
    command = ["table2", *TINY, "--dataset=folder", "--classes=happy,sad", "--folds=3"]
    command += [f"--data={tmp_path / 'faces'}", "--seeds=1", f"--out={out}"]
    for row in fer_ablation.main(command):
        cell = out / row["row"].replace(" ", "") / "seed0"
        summary = checkpoint.read_json(cell / "summary.json")
        assert summary["faces"] == 42
        assert row["mean"] == summary["test_accuracy"]["mean"]
        assert len(list(cell.glob("fold*/summary.json"))) == 3
