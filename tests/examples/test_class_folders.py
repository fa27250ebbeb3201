"""Folders named after expressions, and the order of what is in them."""

from pathlib import Path

import pytest

from fer.data.class_folders import SYNONYMS, class_folders, folders_there, images_in, label_of
from image_trees import write_tree


def make_folders(root: Path, *names: str) -> None:
    for name in names:
        (root / name).mkdir()


def found(root: Path, *classes: str) -> list[tuple[int, str]]:
    return [(label, folder.name) for label, folder in class_folders(root, classes)]


def test_folders_come_in_the_order_of_the_classes(tmp_path: Path) -> None:
    make_folders(tmp_path, "anger", "fear", "sadness")

    assert found(tmp_path, "sadness", "anger", "fear") == [
        (0, "sadness"),
        (1, "anger"),
        (2, "fear"),
    ]


@pytest.mark.parametrize("word", ["happiness", "happy", "Happy", "HAPPINESS", "joy", "HA"])
def test_any_word_for_an_expression_will_do(tmp_path: Path, word: str) -> None:
    make_folders(tmp_path, "Angry", word)

    assert found(tmp_path, "anger", "happiness") == [(0, "Angry"), (1, word)]
    assert found(tmp_path, "angry", "happy") == [(0, "Angry"), (1, word)]


def test_no_word_stands_for_two_expressions() -> None:
    words = [word for name, words in SYNONYMS.items() for word in (name, *words)]
    assert len(set(words)) == len(words)


def test_classes_that_mean_the_same_are_told_apart_by_their_names(tmp_path: Path) -> None:
    make_folders(tmp_path, "happy", "joy")

    assert found(tmp_path, "joy", "happy") == [(0, "joy"), (1, "happy")]


def test_one_folder_is_never_two_classes(tmp_path: Path) -> None:
    make_folders(tmp_path, "happy")

    with pytest.raises(FileNotFoundError, match=r"has no folder for happiness; found happy$"):
        class_folders(tmp_path, ("happy", "happiness"))


def test_two_folders_of_one_class_are_not_chosen_between(tmp_path: Path) -> None:
    make_folders(tmp_path, "anger", "happiness", "happy")

    match = r"the folders happiness and happy both stand for happiness"
    with pytest.raises(ValueError, match=match):
        class_folders(tmp_path, ("anger", "happiness"))


def test_other_folders_hidden_ones_and_files_are_passed_over(tmp_path: Path) -> None:
    make_folders(tmp_path, "anger", "neutral", "__MACOSX", ".anger", "notes")
    (tmp_path / "fear").write_text("a file")

    assert found(tmp_path, "anger") == [(0, "anger")]
    assert label_of("notes", ("anger",)) is None
    with pytest.raises(
        FileNotFoundError, match=r"no folder for fear; found anger, neutral, notes$"
    ):
        class_folders(tmp_path, ("anger", "fear"))
    assert [label for label, _ in folders_there(tmp_path, ("fear", "anger"))] == [1]


def test_a_missing_or_empty_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"root: there is no folder .*nowhere"):
        class_folders(tmp_path / "nowhere", ("anger",))
    with pytest.raises(FileNotFoundError, match=r"no folder for anger, fear; found no folder"):
        class_folders(tmp_path, ("anger", "fear"))


def test_images_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    in_order = ["a1b9.png", "a1b10.png", "a2.png", "a10.jpg", "a010.png", "b0.png"]
    write_tree(tmp_path, reversed(in_order))

    names = [path.name for path in images_in(tmp_path)]

    assert [names.index(name) for name in ("a1b9.png", "a1b10.png", "a2.png")] == [0, 1, 2]
    assert set(names[3:5]) == {"a10.jpg", "a010.png"}
    assert names[5] == "b0.png"


def test_images_are_told_by_any_ending_and_hidden_files_are_none(tmp_path: Path) -> None:
    write_tree(tmp_path, ["1.PNG", "2.JPG", "3.Jpeg", "4.bmp"])
    for name in (".DS_Store", "._1.PNG", "Thumbs.db", "notes.txt", "5.png.part"):
        (tmp_path / name).write_bytes(b"no image")

    assert [path.name for path in images_in(tmp_path)] == ["1.PNG", "2.JPG", "3.Jpeg", "4.bmp"]
