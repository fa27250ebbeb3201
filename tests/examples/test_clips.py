"""Clips: the frames at the peak, and what cannot be told from their names."""

from pathlib import Path

import pytest

from fer.data.clips import clips_in_class_folders, last_frames, load_clips, middle_frames
from fer.data.faces import Database
from image_trees import class_names, levels, write_tree

CLASSES = ("anger", "fear")
ANGER = [f"anger/S001-002/{frame}.png" for frame in (8, 9, 10, 11)]
FEAR = [f"fear/S002_001_{frame}.png" for frame in (98, 99, 100, 101)]


def load(root: Path, *, check_counts: bool = False, **expected: int) -> Database:
    clips = clips_in_class_folders(root, CLASSES)
    return load_clips(
        "faces", root, CLASSES, clips, last_frames, expected, check_counts=check_counts
    )


@pytest.mark.parametrize(
    ("count", "last", "middle"),
    [
        (7, [4, 5, 6], [2, 3, 4]),
        (6, [3, 4, 5], [1, 2, 3]),
        (3, [0, 1, 2], [0, 1, 2]),
        (2, [0, 1], [0, 1]),
        (0, [], []),
    ],
)
def test_the_peak_is_at_the_end_or_in_the_middle(
    count: int, last: list[int], middle: list[int]
) -> None:
    frames = [Path(f"{i}") for i in range(count)]

    assert [int(str(path)) for path in last_frames(frames)] == last
    assert [int(str(path)) for path in middle_frames(frames)] == middle


def test_clips_are_folders_or_groups_of_files_with_the_person_in_front(tmp_path: Path) -> None:
    write_tree(tmp_path, ANGER + FEAR)

    clips = clips_in_class_folders(tmp_path, CLASSES)

    assert [(clip.subject, clip.name, clip.label) for clip in clips] == [
        ("S001", "anger/S001-002", 0),
        ("S002", "fear/S002_001", 1),
    ]
    assert [path.name for path in clips[0].frames] == ["8.png", "9.png", "10.png", "11.png"]


def test_the_chosen_frames_are_read_in_order(tmp_path: Path) -> None:
    write_tree(tmp_path, ANGER + FEAR)

    database = load(tmp_path, check_counts=True, clips=2, images=6, people=2)
    faces = database.splits["all"]

    assert list(database.splits) == ["all"]
    assert levels(database) == [1, 2, 3, 5, 6, 7]
    assert class_names(database) == ["anger"] * 3 + ["fear"] * 3
    assert faces.subjects == ("S001",) * 3 + ("S002",) * 3
    assert faces.names[0] == "anger/S001-002/9.png"
    assert faces.names[-1] == "fear/S002_001/S002_001_101.png"


def test_one_person_keeps_one_name_over_classes_and_layouts(tmp_path: Path) -> None:
    write_tree(tmp_path, ["anger/S001-002/1.png", "fear/S001_003_1.png", "fear/S001-004_1.png"])

    assert {clip.subject for clip in clips_in_class_folders(tmp_path, CLASSES)} == {"S001"}


def test_a_clip_in_both_layouts_is_not_read_twice(tmp_path: Path) -> None:
    write_tree(tmp_path, [*ANGER, *FEAR, "anger/S001-002_000.png"])

    with pytest.raises(ValueError, match=r"anger: the clip S001-002 is there as a folder and as"):
        clips_in_class_folders(tmp_path, CLASSES)


@pytest.mark.parametrize(
    "name",
    [
        "anger/face.png",  # nothing is a person, a clip or a frame
        "anger/S001_5.png",  # a person and a frame
        "anger/_001_5.png",
        "anger/0017/5.png",  # the number of a session, which names nobody
        "anger/-001/5.png",
    ],
)
def test_a_name_without_a_person_is_refused(tmp_path: Path, name: str) -> None:
    write_tree(tmp_path, [*FEAR, name])

    with pytest.raises(ValueError, match=r"anger.*: expected a name like S010_004_00000017\.png"):
        clips_in_class_folders(tmp_path, CLASSES)


def test_short_clips_are_counted_and_can_be_taken_as_they_are(tmp_path: Path) -> None:
    write_tree(tmp_path, [*ANGER, *FEAR[:2]])
    (tmp_path / "fear" / "S003_001").mkdir()

    match = r"2 of 3 clips have fewer than 3 frames, fear/S003_001 .* with 0 \(--no-check-counts"
    with pytest.raises(ValueError, match=match):
        load(tmp_path, check_counts=True, clips=3, images=5)
    assert levels(load(tmp_path)) == [1, 2, 3, 4, 5]


def test_counts_are_required_before_an_image_is_read(tmp_path: Path) -> None:
    write_tree(tmp_path, ANGER + FEAR)
    (tmp_path / ANGER[-1]).write_bytes(b"no image")

    match = r"clips: expected 3, found 2; images: expected 6, found 6; people: expected 1, found 2"
    with pytest.raises(ValueError, match=rf"{match}.*--no-check-counts"):
        load(tmp_path, check_counts=True, clips=3, images=6, people=1)
    with pytest.raises(ValueError, match=r"11\.png cannot be decoded"):
        load(tmp_path)


def test_a_class_without_frames_is_refused_in_any_case(tmp_path: Path) -> None:
    write_tree(tmp_path, ANGER)
    (tmp_path / "fear" / "S003_001").mkdir(parents=True)

    with pytest.raises(ValueError, match=r"there is no clip with frames of fear$"):
        load(tmp_path)


def test_a_frame_in_two_formats_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path, [*ANGER, *FEAR, "anger/S001-002/11.jpg"])

    with pytest.raises(ValueError, match=r"anger/S001-002 holds more than one image called 11$"):
        load(tmp_path)


def test_frames_of_two_sizes_point_to_the_cropping(tmp_path: Path) -> None:
    write_tree(tmp_path, ANGER)
    write_tree(tmp_path, FEAR, size=(5, 4))

    match = r"S002_001_99\.png is 5 x 4, but .*9\.png is 4 x 4; align_faces\.py cuts faces out"
    with pytest.raises(ValueError, match=match):
        load(tmp_path)
