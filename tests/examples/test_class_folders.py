"""Folders named after expressions, and the order of what is in them."""

from pathlib import Path

import pytest

from fer.data.class_folders import (
    SYNONYMS,
    find_class_folders,
    find_label,
    list_images,
    require_class_folders,
)
from image_trees import write_tree

OTHERS = ["anger", "neutral", "__MACOSX", ".anger", "notes"]
"""Of which most name no class, and two are hidden."""


def make_folders(root: Path, names: list[str]) -> None:
    for name in names:
        (root / name).mkdir()


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        (["anger", "fear", "sadness"], {"sadness": "sadness", "anger": "anger", "fear": "fear"}),
        # Classes that mean the same are told apart by their names.
        (["happy", "joy"], {"joy": "joy", "happy": "happy"}),
        (OTHERS, {"anger": "anger"}),
        *(
            (["Angry", word], dict(zip(classes, ("Angry", word), strict=True)))
            for word in ("happiness", "happy", "Happy", "HAPPINESS", "joy", "HA")
            for classes in (("anger", "happiness"), ("angry", "happy"))
        ),
    ],
    ids=str,
)
def test_each_class_has_the_folder_of_its_meaning_in_the_order_of_the_classes(
    tmp_path: Path, folders: list[str], classes: dict[str, str]
) -> None:
    make_folders(tmp_path, folders)
    found = [
        (label, folder.name) for label, folder in require_class_folders(tmp_path, tuple(classes))
    ]
    assert found == list(enumerate(classes.values()))


def test_no_word_stands_for_two_expressions() -> None:
    words = [word for name, words in SYNONYMS.items() for word in (name, *words)]
    assert len(set(words)) == len(words)


@pytest.mark.parametrize(
    ("folders", "classes", "match"),
    [
        # One folder is never two classes.
        (["happy"], ("happy", "happiness"), r"has no folder for happiness; found happy$"),
        (OTHERS, ("anger", "fear"), r"no folder for fear; found anger, neutral, notes$"),
        ([], ("anger", "fear"), r"no folder for anger, fear; found no folder"),
    ],
)
def test_a_class_without_a_folder_is_named(
    tmp_path: Path, folders: list[str], classes: tuple[str, ...], match: str
) -> None:
    make_folders(tmp_path, folders)
    (tmp_path / "fear").write_text("a file")
    with pytest.raises(FileNotFoundError, match=match):
        require_class_folders(tmp_path, classes)


def test_two_folders_of_one_class_are_not_chosen_between(tmp_path: Path) -> None:
    make_folders(tmp_path, ["anger", "happiness", "happy"])
    match = r"the folders happiness and happy both stand for happiness"
    with pytest.raises(ValueError, match=match):
        require_class_folders(tmp_path, ("anger", "happiness"))


def test_classes_may_be_without_a_folder_but_not_without_a_root(tmp_path: Path) -> None:
    make_folders(tmp_path, OTHERS)
    assert [label for label, _ in find_class_folders(tmp_path, ("fear", "anger"))] == [1]
    assert find_label("notes", ("anger",)) is None
    with pytest.raises(FileNotFoundError, match=r"root: there is no folder .*nowhere"):
        require_class_folders(tmp_path / "nowhere", ("anger",))


def test_images_are_told_by_their_endings_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    write_tree(tmp_path, ["b0.PNG", "a010.bmp", "a10.JPG", "a2.Jpeg", "a1b10.png", "a1b9.png"])
    for name in (".DS_Store", "._1.PNG", "Thumbs.db", "notes.txt", "5.png.part"):
        (tmp_path / name).write_bytes(b"no image")
    names = [path.name for path in list_images(tmp_path)]
    assert names[:3] == ["a1b9.png", "a1b10.png", "a2.Jpeg"]
    assert set(names[3:5]) == {"a10.JPG", "a010.bmp"}
    assert names[5:] == ["b0.PNG"]
