"""The reader of plain class folders, whose owner says the order of the classes."""

from pathlib import Path

import pytest

from fer.data.folder import load_folder
from image_trees import class_names, levels, write_tree

HAPPY_OR_SAD = ("sad", "happy")
NAMES = [f"{name}/{person}_{i}.png" for name in HAPPY_OR_SAD for person in "ab" for i in (9, 10)]


def test_labels_follow_the_declared_order_not_the_alphabet(tmp_path: Path) -> None:
    write_tree(tmp_path, [*NAMES, "3/a_1.png"])
    database = load_folder(tmp_path, HAPPY_OR_SAD)
    faces = database.splits["all"]
    assert (database.name, database.classes) == ("folder", HAPPY_OR_SAD)
    assert list(database.splits) == ["all"]
    assert faces.images.shape == (8, 3, 4, 4)
    assert levels(database) == list(range(8))
    assert class_names(database) == ["sad"] * 4 + ["happy"] * 4
    assert faces.names[:2] == ("sad/a_9.png", "sad/a_10.png")
    assert faces.subjects == ("a", "a", "b", "b") * 2
    assert class_names(load_folder(tmp_path, ("happy", "3", "sad")))[::4] == ["happy", "3", "sad"]


@pytest.mark.parametrize("splits", [("train", "test"), ("train", "valid", "test")])
def test_splits_are_kept_and_need_nobody_named(tmp_path: Path, splits: tuple[str, ...]) -> None:
    for split in splits:
        write_tree(tmp_path / split, ["sad/1.png", "happy/2.png", "happy/-.png"])
    database = load_folder(tmp_path, HAPPY_OR_SAD)
    assert tuple(database.splits) == splits
    assert all(faces.subjects is None for faces in database.splits.values())
    assert class_names(database, "test") == ["sad", "happy", "happy"]


@pytest.mark.parametrize(
    ("pattern", "people"),
    [
        (r"[^_-]+", "P07 P08"),
        (r"P\d+", "P07 P08"),
        (r"_(\d+)", "12 12"),
        (r"P(\d+)_(\d+)", "07 08"),
        (r".+", "P07_12 P08_12"),
    ],
)
def test_a_pattern_says_who_is_in_an_image(tmp_path: Path, pattern: str, people: str) -> None:
    write_tree(tmp_path, ["sad/P07_12.png", "happy/P08_12.png", "happy/P08_12.jpg"])
    faces = load_folder(tmp_path, HAPPY_OR_SAD, subject=pattern).splits["all"]
    assert (faces.subjects or ())[:2] == tuple(people.split())


@pytest.mark.parametrize("pattern", [r"P\d+", r"x*", r"\d(x)?", r"(?=.)"])
def test_a_name_without_a_person_is_refused(tmp_path: Path, pattern: str) -> None:
    write_tree(tmp_path, NAMES)
    with pytest.raises(ValueError, match=r"a_9\.png: its name has no person .*\(--subject\)"):
        load_folder(tmp_path, HAPPY_OR_SAD, subject=pattern)


def test_names_that_do_not_name_people_are_not_taken_for_them(tmp_path: Path) -> None:
    write_tree(tmp_path, ["sad/0001.png", "sad/0002.png", "happy/0003.png"])
    with pytest.raises(ValueError, match=r"every image names a person .* 0001 first: .*--subject"):
        load_folder(tmp_path, HAPPY_OR_SAD)
    people = load_folder(tmp_path, HAPPY_OR_SAD, subject=".+").splits["all"].subjects
    assert people == ("0001", "0002", "0003")


def test_what_are_no_class_folders_is_refused(tmp_path: Path) -> None:
    for classes, got in (((), "none"), (("sad", "sad"), "sad, sad"), (("sad", ""), "sad, ")):
        with pytest.raises(ValueError, match=f"classes must be distinct names, got {got}"):
            load_folder(tmp_path, classes)
    with pytest.raises(FileNotFoundError, match=r"root: there is no folder .*nowhere"):
        load_folder(tmp_path / "nowhere", HAPPY_OR_SAD)
    write_tree(tmp_path / "train", NAMES)
    with pytest.raises(FileNotFoundError, match=r"has train, but no folder test"):
        load_folder(tmp_path, HAPPY_OR_SAD)
    write_tree(tmp_path / "test", ["sad/1.png"])
    with pytest.raises(FileNotFoundError, match=r"test has no folder for happy; found sad"):
        load_folder(tmp_path, HAPPY_OR_SAD)
    # Nor is an image read before.
    (tmp_path / "train" / NAMES[0]).write_bytes(b"no image")
    (tmp_path / "test" / "happy").mkdir()
    with pytest.raises(ValueError, match=r"test.happy holds no images of happy$"):
        load_folder(tmp_path, HAPPY_OR_SAD)
