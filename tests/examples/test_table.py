"""The one table of databases: what it promises to the scripts, and that faces are read once."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fer.data import DATABASES, read_database, table
from fer.data.table import DATA_OPTIONS, read_all_faces
from fer.options import DATASETS, Options
from image_trees import CK48_CLIPS, class_names, write_tree

# Table 3 of the paper: its baseline, and FDRL.
PRINTED = {"rafdb": (86.93, 89.47), "sfew": (58.03, 62.16)}
PRINTED |= {"ckplus": (97.15, 99.54), "mmi": (79.69, 85.23), "oulu": (86.18, 88.26)}


def write_small_dump(root: Path) -> Options:
    """Write a dump of CK+ in which four people show everything, and return how to read it."""
    names = (
        f"{name}/S{person:03}_{sequence:03}_{frame:08}.png"
        for sequence, name in enumerate(CK48_CLIPS, start=1)
        for person in range(1, 5)
        for frame in (1, 2, 3)
    )
    write_tree(root / "CK+48", names)
    return Options(dataset="ckplus", data=str(root), check_counts=False, folds=2)


def test_every_dataset_of_the_command_line_is_in_the_table() -> None:
    assert tuple(DATABASES) == DATASETS
    folded = [name for name, entry in DATABASES.items() if entry.is_cross_validated]
    assert folded == ["ckplus", "mmi", "oulu"]
    printed = {
        name: entry.paper_accuracies for name, entry in DATABASES.items() if entry.paper_accuracies
    }
    assert printed == PRINTED


def test_a_database_is_read_once_whole_or_as_a_fold_and_counted(tmp_path: Path) -> None:
    options = write_small_dump(tmp_path)
    assert read_database(options).sizes == {"all": 7 * 4 * 3}
    fold = read_database(replace(options, fold=2))
    assert fold.sizes == {"train": 42, "test": 42}
    another = read_database(replace(options, fold=2, fold_seed=1))
    assert another.splits["test"].names != fold.splits["test"].names
    with pytest.raises(ValueError, match=r"clips: expected 327, found 28"):
        read_database(replace(options, check_counts=True))
    # Folds and other recipes share the faces that were read.
    whole = read_all_faces(options)
    other = replace(options, fold=1, seed=7, epochs=3, head="linear")
    assert read_all_faces(other, progress=True) is whole


def test_the_options_of_a_folder_reach_its_reader(tmp_path: Path) -> None:
    classes = ["sad", "happy"]
    write_tree(tmp_path, (f"{name}/x{person}-1.png" for name in classes for person in "ab"))
    asked: dict[str, Any] = {"data": str(tmp_path), "classes": classes}
    database = read_database(Options(dataset="folder", subject="x(.)", **asked))
    assert class_names(database) == ["sad", "sad", "happy", "happy"]
    assert database.splits["all"].subjects == ("a", "b", "a", "b")


@pytest.mark.parametrize("name", sorted({*DATA_OPTIONS} - {"check_counts"}))
def test_whatever_decides_the_faces_has_them_read_again(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = write_small_dump(tmp_path)
    monkeypatch.setattr(table, "DATABASES", dict.fromkeys(DATASETS, DATABASES["ckplus"]))
    if name == "targets":
        options = replace(options, dataset="ferplus")
    whole = read_all_faces(options)
    other: dict[str, Any] = {"dataset": "mmi", "data": f"{tmp_path}/", "labels": "fer2013new.csv"}
    other |= {"targets": "votes", "classes": ["sad"], "subject": ".+", "faces": 7}
    assert read_all_faces(replace(options, **{name: other[name]})) is not whole
