"""Every command on faces that lie on disk as each database does; CK+ is test_fer_crossval.py's."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import fer_crossval
import fer_rafdb
from fer.data.class_folders import EXPRESSIONS
from fer.data.ferplus import FOLDERS
from fer.data.rafdb import CLASSES
from fer.data.votes import CLASSES as FERPLUS_CLASSES
from fer.model import checkpoint
from image_trees import write_image, write_text
from small_runs import COMMAND, use_small_backbone

Writer = Callable[[Path], None]

SHOWN = [(i, expression, i // 7 + 1) for i, expression in enumerate(12 * CLASSES)]
"""Twelve people with each of the seven expressions: a number, the expression, and the person."""
TWO_CLASSES = "folder --classes=sadness,happiness --head=linear"
PEOPLE = f"folder --classes={','.join(EXPRESSIONS)} --subject=p.*"


def write_rafdb(root: Path) -> None:
    lines = []
    for index, expression, person in SHOWN:
        name = f"{'test' if person > 8 else 'train'}_{index:05}"
        write_image(root / "basic/Image/aligned" / f"{name}_aligned.jpg", index)
        lines.append(f"{name}.jpg {CLASSES.index(expression) + 1}")
    write_text(root / "basic/EmoLabel/list_patition_label.txt", "\n".join(lines))


def write_ferplus(root: Path) -> None:
    lines: dict[str, list[str]] = {folder: [] for folder in FOLDERS.values()}
    for index, expression, person in SHOWN:
        folder = FOLDERS[("train", "train", "valid", "test")[person % 4]]
        write_image(root / folder / f"fer{index:07}.png", index)
        votes = [10 * (name == expression) for name in (*FERPLUS_CLASSES, "unknown", "NF")]
        lines[folder].append(f'fer{index:07}.png,"(0, 0, 48, 48)",{",".join(map(str, votes))}\n')
    for folder, rows in lines.items():
        write_text(root / folder / "label.csv", "".join(rows))


def placed(name: str, frames: int = 1) -> Writer:
    """Return what writes the frames of every face under names of a pattern."""

    def write(root: Path) -> None:
        words = {"happiness": "Happy", "sadness": "Sad", "anger": "Angry"}
        for index, expression, person in SHOWN:
            known = {"index": index, "person": person, "expression": expression}
            known |= {"word": words.get(expression, expression.title())}
            known |= {"split": "test" if person > 8 else "train"}
            known |= {"half": "Val" if person > 8 else "Train"}
            for frame in range(frames):
                write_image(root / name.format(frame=frame, **known), index)

    return write


def command(said: str, folder: Path) -> list[str]:
    data = ["--no-check-counts", "--data", str(folder / "data"), "--out", str(folder / "out")]
    return [*COMMAND, "--epochs=1", *data, "--dataset", *said.split()]


@pytest.mark.parametrize(
    ("said", "write", "tested"),
    [
        ("rafdb", write_rafdb, 28),
        ("ferplus", write_ferplus, 21),
        ("sfew", placed("{half}/{word}/Film_{index:09}.png"), 28),
        (TWO_CLASSES, placed("{split}/{expression}/{index}.png"), 8),
    ],
)
def test_trains_on_every_database_with_splits(
    said: str, write: Writer, tested: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_small_backbone(monkeypatch)
    write(tmp_path / "data")
    summary = fer_rafdb.main(command(said, tmp_path))
    assert summary["faces"]["test"] == tested
    assert summary["best_chosen_on"] == ("valid" if said == "ferplus" else "test")
    assert (tmp_path / "out" / "evaluation.pt").is_file()
    drawn = (tmp_path / "out" / "intra_weights.png").is_file()
    assert drawn == (summary["options"]["head"] == "fdrl") == ("--head=linear" not in said)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("said", "write", "tested"),
    [
        ("mmi --head=linear", placed("{expression}/S{person:03}-{index:03}/{frame}.png", 5), 216),
        ("oulu", placed("VL/Strong/P{person:03}/{word}/{frame:03}.jpeg", 4), 216),
        (PEOPLE, placed("{expression}/{index}_p{person}.png"), 72),
    ],
)
def test_cross_validates_every_database_without_splits(
    said: str, write: Writer, tested: int, tmp_path: Path
) -> None:
    write(tmp_path / "data")
    summary = fer_crossval.main(command(f"{said} --folds=2 --limit=28", tmp_path))
    assert summary["faces"] == tested
    assert [row["faces"] for row in summary["folds"]] == [tested // 2] * 2
    assert np.sum(summary["confusion"], 1).tolist() == [tested // 6] * 6
    assert checkpoint.read_json(tmp_path / "out" / "summary.json")["folds"] == summary["folds"]
