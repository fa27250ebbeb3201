"""The reader of SFEW 2.0, on trees in the layouts of its frames and of its faces."""

import shutil
from pathlib import Path

import pytest

from fer.data.sfew import CLASSES, COUNTS, LAYOUTS, load_sfew
from image_trees import class_names, levels, write_image, write_tree

FOLDERS = ("Angry", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")


def write_pair(root: Path, train: str, val: str) -> None:
    write_tree(root / train, (f"{name}/Film_{i}.png" for name in FOLDERS for i in (0, 1)))
    write_tree(root / val, (f"{name}/Other_0.png" for name in FOLDERS))


@pytest.mark.parametrize(("train", "val"), LAYOUTS, ids=[train for train, _ in LAYOUTS])
def test_validation_faces_are_taken_for_test(tmp_path: Path, train: str, val: str) -> None:
    write_pair(tmp_path, train, val)
    # The test faces of the challenge have no labels.
    write_tree(tmp_path / "Test_Aligned_Faces", ["1.png"])
    database = load_sfew(tmp_path, check_counts=False)
    assert database.name == "sfew"
    assert list(database.splits) == ["train", "test"]
    assert database.splits["train"].images.shape == (14, 3, 4, 4)
    assert levels(database, "train") == list(range(14))
    assert class_names(database, "train") == [name for name in CLASSES for _ in range(2)]
    assert class_names(database, "test") == list(CLASSES)
    assert database.splits["test"].names[0] == "Angry/Other_0.png"


def test_reads_the_whole_database_and_notices_what_is_missing(tmp_path: Path) -> None:
    for folder, count in zip(("Train", "Val"), COUNTS.values(), strict=True):
        for i in range(count):
            write_image(tmp_path / folder / FOLDERS[i % 7] / f"Film_{i}.png")
    assert load_sfew(tmp_path).sizes == COUNTS
    (tmp_path / "Train" / "Angry" / "Film_0.png").unlink()
    (tmp_path / "Val" / "Angry" / "Film_0.png").write_bytes(b"no image")
    match = r"train: expected 958, found 957; test: expected 436, found 436\).*--no-check-counts"
    with pytest.raises(ValueError, match=match):
        load_sfew(tmp_path)


def test_a_root_must_hold_one_pair_of_one_kind(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"root: there is no folder .*nowhere"):
        load_sfew(tmp_path / "nowhere")
    # Aligned training faces are not tested on whole frames.
    write_pair(tmp_path, "Train_Aligned_Faces", "Val")
    match = r"no SFEW in .*; looked for Train_Aligned_Faces with Val_Aligned_Faces_new, "
    with pytest.raises(FileNotFoundError, match=match):
        load_sfew(tmp_path)
    write_pair(tmp_path, "Train", "Val_Aligned_Faces")
    match = r"holds Train_Aligned_Faces with Val_Aligned_Faces and Train with Val; leave one pair"
    with pytest.raises(ValueError, match=match):
        load_sfew(tmp_path)


def test_a_missing_or_empty_class_is_named(tmp_path: Path) -> None:
    write_pair(tmp_path, "Train", "Val")
    shutil.rmtree(tmp_path / "Val" / "Fear")
    with pytest.raises(FileNotFoundError, match=r"Val has no folder for fear; found Angry, Disg"):
        load_sfew(tmp_path, check_counts=False)
    (tmp_path / "Val" / "Fear").mkdir()
    with pytest.raises(ValueError, match=r"Val.Fear holds no images of fear$"):
        load_sfew(tmp_path, check_counts=False)
