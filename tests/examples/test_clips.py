"""Clips: the frames at the peak, and what cannot be told from their names."""

from pathlib import Path

import pytest

from fer.data.clips import load_clips, read_clips, select_last_frames, select_middle_frames
from fer.data.faces import Database
from image_trees import class_names, levels, write_tree

CLASSES = ("anger", "fear")
ANGER = [f"anger/S001-002/{frame}.png" for frame in (8, 9, 10, 11)]
FEAR = [f"fear/S002_001_{frame}.png" for frame in (98, 99, 100, 101)]
BOTH = ANGER + FEAR


def load(root: Path, **expected: int) -> Database:
    """Read clips, and require the numbers that are expected, if any are."""
    clips = read_clips(root, CLASSES)
    check = bool(expected)
    return load_clips(
        "faces", root, CLASSES, clips, select_last_frames, expected, check_counts=check
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
def test_the_peak_is_last_or_in_the_middle(count: int, last: list[int], middle: list[int]) -> None:
    frames = [Path(f"{i}") for i in range(count)]
    assert [int(str(path)) for path in select_last_frames(frames)] == last
    assert [int(str(path)) for path in select_middle_frames(frames)] == middle


def test_clips_are_folders_or_groups_of_files_with_the_person_in_front(tmp_path: Path) -> None:
    write_tree(tmp_path, [*BOTH, "fear/S001_003_1.png", "fear/S001-004_1.png"])
    clips = read_clips(tmp_path, CLASSES)
    # One person keeps one name over classes and layouts.
    assert [(clip.subject, clip.name, clip.label) for clip in clips] == [
        ("S001", "anger/S001-002", 0),
        ("S001", "fear/S001-004", 1),
        ("S001", "fear/S001_003", 1),
        ("S002", "fear/S002_001", 1),
    ]
    assert [path.name for path in clips[0].frames] == ["8.png", "9.png", "10.png", "11.png"]


def test_the_chosen_frames_are_read_in_order(tmp_path: Path) -> None:
    write_tree(tmp_path, BOTH)
    database = load(tmp_path, clips=2, images=6, people=2)
    faces = database.splits["all"]
    assert list(database.splits) == ["all"]
    assert levels(database) == [1, 2, 3, 5, 6, 7]
    assert class_names(database) == ["anger"] * 3 + ["fear"] * 3
    assert faces.subjects == ("S001",) * 3 + ("S002",) * 3
    assert faces.names[0] == "anger/S001-002/9.png"
    assert faces.names[-1] == "fear/S002_001/S002_001_101.png"


@pytest.mark.parametrize(
    ("names", "match"),
    [
        ([*BOTH, "anger/S001-002_000.png"], "anger: the clip S001-002 is there as a folder and as"),
        ([*BOTH, "anger/S001-002/11.jpg"], "anger/S001-002 holds more than one image called 11$"),
        ([*ANGER, "fear/S003_001/notes.txt"], "there is no clip with frames of fear$"),
        *(
            ([*FEAR, f"anger/{name}"], r"anger.*: expected a name like S010_004_00000017\.png")
            for name in (
                "face.png",  # nothing is a person, a clip or a frame
                "S001_5.png",  # a person and a frame
                "_001_5.png",
                "0017/5.png",  # the number of a session, which names nobody
                "-001/5.png",
            )
        ),
    ],
)
def test_refuses_names_that_do_not_make_clips(tmp_path: Path, names: list[str], match: str) -> None:
    write_tree(tmp_path, names)
    with pytest.raises(ValueError, match=match):
        load(tmp_path)


def test_short_clips_are_counted_and_can_be_taken_as_they_are(tmp_path: Path) -> None:
    write_tree(tmp_path, [*ANGER, *FEAR[:2]])
    (tmp_path / "fear" / "S003_001").mkdir()
    match = r"2 of 3 clips have fewer than 3 frames, fear/S003_001 .* with 0 \(--no-check-counts"
    with pytest.raises(ValueError, match=match):
        load(tmp_path, clips=3, images=5)
    assert levels(load(tmp_path)) == [1, 2, 3, 4, 5]


def test_counts_are_required_before_an_image_is_read(tmp_path: Path) -> None:
    write_tree(tmp_path, BOTH)
    (tmp_path / ANGER[-1]).write_bytes(b"no image")
    match = r"clips: expected 3, found 2; images: expected 6, found 6; people: expected 1, found 2"
    with pytest.raises(ValueError, match=rf"{match}.*--no-check-counts"):
        load(tmp_path, clips=3, images=6, people=1)
    with pytest.raises(ValueError, match=r"11\.png cannot be decoded"):
        load(tmp_path)
