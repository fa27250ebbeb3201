"""The reader of MMI, on videos taken apart into frames and on frames picked by hand."""

import shutil
from pathlib import Path

import pytest

from fer.data.mmi import CLASSES, load_mmi
from image_trees import class_names, levels, write_image, write_tree

SESSIONS = [f"{name}/S00{i}-00{7 - i}" for i, name in enumerate(CLASSES, start=1)]


def test_reads_the_middle_three_frames_of_each_sequence(tmp_path: Path) -> None:
    # As ffmpeg numbers them: the frames 9, 10 and 11 of 19 are the middle ones.
    write_tree(tmp_path, (f"{each}/{frame}.jpg" for each in SESSIONS for frame in range(1, 20)))
    database = load_mmi(tmp_path, check_counts=False)
    faces = database.splits["all"]
    assert (database.name, database.classes) == ("mmi", CLASSES)
    assert faces.images.shape == (18, 3, 4, 4)
    assert faces.names[:3] == tuple(f"anger/S001-006/{frame}.jpg" for frame in (9, 10, 11))
    assert levels(database)[:6] == [8, 9, 10, 27, 28, 29]
    assert class_names(database)[::3] == list(CLASSES)
    assert (faces.subjects or ())[::3] == ("S001", "S002", "S003", "S004", "S005", "S006")


def test_three_frames_picked_by_hand_are_all_taken(tmp_path: Path) -> None:
    write_tree(tmp_path, (f"{each}_{frame}.png" for each in SESSIONS for frame in (99, 100, 8)))
    database = load_mmi(tmp_path, check_counts=False)
    assert levels(database)[:3] == [2, 0, 1]
    assert database.splits["all"].names[0] == "anger/S001-006/S001-006_8.png"


def test_reads_the_whole_database_and_notices_what_is_missing(tmp_path: Path) -> None:
    names = [f"{CLASSES[i % 6]}/S{i % 31 + 1:03}-{i // 31 + 1:03}" for i in range(205)]
    for name in names:
        for frame in range(1, 6):
            write_image(tmp_path / name / f"{frame}.png")
    faces = load_mmi(tmp_path).splits["all"]
    assert len(faces) == 615
    assert len(set(faces.subjects or ())) == 31
    shutil.rmtree(tmp_path / names[7])
    match = r"mmi in .*clips: expected 205, found 204; images: expected 615, found 612"
    with pytest.raises(ValueError, match=match):
        load_mmi(tmp_path)
    assert len(load_mmi(tmp_path, check_counts=False).splits["all"]) == 612


def test_a_missing_class_is_named_and_sessions_as_distributed_are_no_people(tmp_path: Path) -> None:
    write_tree(tmp_path, (f"{name}/1767/{frame}.png" for name in CLASSES for frame in range(3)))
    with pytest.raises(ValueError, match=r"1767: expected .* with the person in front"):
        load_mmi(tmp_path, check_counts=False)
    shutil.rmtree(tmp_path / "anger")
    with pytest.raises(FileNotFoundError, match=r"has no folder for anger; found disgust, fear"):
        load_mmi(tmp_path)
