"""The reader of CK+, on trees in its authors' layout and in that of the 48 x 48 dump."""

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from fer.data.ckplus import CLASSES, IMAGES, load_ckplus
from image_trees import CK48_CLIPS, class_names, levels, write_ck48, write_image, write_tree

# One sequence of each class; S005/002 has a folder for its label but none in it, as most have.
CODES = {f"S{number:03}/001": code for number, code in enumerate(range(7, 0, -1), start=5)}
UNLABELED = "S005/002"
FRAMES = 5


def write_official(root: Path, images: str = "", emotions: str = "") -> None:
    """Write both halves of the official CK+, every frame of its own gray level."""
    sequences = sorted([*CODES, UNLABELED])
    write_tree(
        root / images / "cohn-kanade-images",
        (
            f"{name}/{name.replace('/', '_')}_{frame:08}.png"
            for name in sequences
            for frame in range(1, FRAMES + 1)
        ),
    )
    for name in sequences:
        folder = root / emotions / "Emotion" / name
        folder.mkdir(parents=True)
        if name in CODES:
            label = folder / f"{name.replace('/', '_')}_{FRAMES:08}_emotion.txt"
            label.write_text(f"   {CODES[name]}.0000000e+00\n")
            (images_of(root / images, name) / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
            (folder / f"._{label.name}").write_bytes(b"\0\5\x16\7")


def images_of(root: Path, sequence: str) -> Path:
    return root / "cohn-kanade-images" / sequence


@pytest.mark.parametrize(
    ("images", "emotions"),
    [("", ""), (IMAGES[1].split("/")[0], "Emotion_labels")],
    ids=["as-unpacked-together", "as-unpacked-apart"],
)
def test_reads_the_last_three_frames_of_labeled_sequences(
    tmp_path: Path, images: str, emotions: str
) -> None:
    write_official(tmp_path, images, emotions)

    database = load_ckplus(tmp_path, check_counts=False)
    faces = database.splits["all"]

    assert database.name == "ckplus"
    assert database.classes == CLASSES
    assert faces.images.shape == (21, 1, 4, 4)
    assert faces.names[:3] == tuple(f"S005/001/S005_001_{frame:08}.png" for frame in (3, 4, 5))
    # The five frames of the sequence without a label are levels 5 to 9.
    assert levels(database)[:6] == [2, 3, 4, 12, 13, 14]
    assert class_names(database)[::3] == list(reversed(CLASSES))
    assert faces.subjects is not None
    assert faces.subjects[::3] == tuple(name[:4] for name in CODES)


def test_frames_of_color_become_gray_ones(tmp_path: Path) -> None:
    write_official(tmp_path)
    for path in images_of(tmp_path, "S005/001").glob("*.png"):
        write_image(path, 200, mode="RGB")

    assert levels(load_ckplus(tmp_path, check_counts=False))[:4] == [200, 200, 200, 12]


def test_frames_of_the_two_official_sizes_point_to_the_cropping(tmp_path: Path) -> None:
    write_official(tmp_path)
    for path in images_of(tmp_path, "S011/001").glob("*.png"):
        write_image(path, size=(4, 5))

    with pytest.raises(
        ValueError, match=r"S011.* is 4 x 5, but .*S005.* is 4 x 4; align_faces\.py"
    ):
        load_ckplus(tmp_path, check_counts=False)


@pytest.mark.parametrize("text", ["0.0000000e+00", "8.0", "3.5", "nan", "happy", "1 2"])
def test_a_label_that_is_no_code_is_named(tmp_path: Path, text: str) -> None:
    write_official(tmp_path)
    (tmp_path / "Emotion" / UNLABELED / "S005_002_00000005_emotion.txt").write_text(text)

    match = rf"S005_002_.*: expected a code from 1 to 7, got {re.escape(repr(text))}$"
    with pytest.raises(ValueError, match=match):
        load_ckplus(tmp_path)


def test_two_labels_of_one_sequence_are_not_chosen_between(tmp_path: Path) -> None:
    write_official(tmp_path)
    (tmp_path / "Emotion" / "S005" / "001" / "S005_001_00000009_emotion.txt").write_text("1.0")

    with pytest.raises(
        ValueError, match=r"00000009_emotion\.txt: S005/001 has more than one label"
    ):
        load_ckplus(tmp_path)


def test_a_labeled_sequence_without_frames_is_named(tmp_path: Path) -> None:
    write_official(tmp_path)
    extra = tmp_path / "Emotion" / "S099" / "001" / "S099_001_00000005_emotion.txt"
    extra.parent.mkdir(parents=True)
    extra.write_text("1.0")

    with pytest.raises(FileNotFoundError, match=r"no folder .*S099.001 .*\(--no-check-counts"):
        load_ckplus(tmp_path)
    assert len(load_ckplus(tmp_path, check_counts=False).splits["all"]) == 21


@pytest.mark.parametrize(
    ("absent", "match"),
    [
        ("Emotion", r"holds the frames of CK\+ alone; looked for Emotion, Emotion_labels/Emotion"),
        ("cohn-kanade-images", r"holds the labels of CK\+ alone; looked for cohn-kanade-images, "),
    ],
)
def test_half_of_the_official_layout_is_not_taken_for_the_dump(
    tmp_path: Path, absent: str, match: str
) -> None:
    write_official(tmp_path)
    shutil.rmtree(tmp_path / absent)

    with pytest.raises(FileNotFoundError, match=match):
        load_ckplus(tmp_path)


def test_labels_that_are_all_absent_are_said_to_be(tmp_path: Path) -> None:
    write_official(tmp_path)
    for path in (tmp_path / "Emotion").glob("*/*/*.txt"):
        path.unlink()

    with pytest.raises(FileNotFoundError, match=r"Emotion holds no label like S005/001/\*_emotion"):
        load_ckplus(tmp_path)


def test_the_numbers_of_the_paper_are_required_of_the_official_layout(tmp_path: Path) -> None:
    write_official(tmp_path)

    match = (
        r"ckplus in .*clips: expected 327, found 7; images: expected 981, found 21; "
        r"people: expected 118, found 7\); to go on .*--no-check-counts"
    )
    with pytest.raises(ValueError, match=match):
        load_ckplus(tmp_path)


@pytest.fixture(scope="module")
def ck48(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ck")
    write_ck48(root / "CK+48")
    return root


@pytest.mark.parametrize("inside", ["", "CK+48"])
def test_reads_the_whole_dump(ck48: Path, inside: str) -> None:
    database = load_ckplus(ck48 / inside)
    faces = database.splits["all"]

    assert faces.images.shape == (981, 1, 48, 48)
    assert faces.subjects is not None
    assert len(set(faces.subjects)) == 118
    assert len(set(faces.names)) == 981
    expected = {**CK48_CLIPS, "happiness": CK48_CLIPS["happy"]}
    assert Counter(class_names(database)) == {name: 3 * expected[name] for name in CLASSES}
    assert all(
        name.split("/")[1].startswith(f"{subject}_")
        for name, subject in zip(faces.names, faces.subjects, strict=True)
    )


def test_an_image_that_is_missing_from_the_dump_is_noticed(ck48: Path, tmp_path: Path) -> None:
    root = tmp_path / "CK+48"
    shutil.copytree(ck48 / "CK+48", root)
    path = min((root / "fear").iterdir())
    path.unlink()
    with pytest.raises(ValueError, match=r"1 of 327 clips have fewer than 3 frames, fear/S"):
        load_ckplus(tmp_path)
    assert len(load_ckplus(tmp_path, check_counts=False).splits["all"]) == 980

    for other in (root / "fear").glob(f"{path.stem[:8]}_*"):
        other.unlink()
    with pytest.raises(ValueError, match=r"clips: expected 327, found 326; .* 981, found 978"):
        load_ckplus(tmp_path)


def test_a_dump_without_a_class_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path, [f"{name}/S001_001_00000001.png" for name in CK48_CLIPS if name != "fear"])

    with pytest.raises(FileNotFoundError, match=r"has no folder for fear; found anger, contempt"):
        load_ckplus(tmp_path, check_counts=False)


def test_two_copies_of_ck_are_not_chosen_between(tmp_path: Path) -> None:
    write_official(tmp_path)
    (tmp_path / "CK+48").mkdir()

    with pytest.raises(ValueError, match=r"holds the official CK\+ and CK\+48; move one elsewhere"):
        load_ckplus(tmp_path)


def test_a_root_without_the_database_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"root: there is no folder .*nowhere"):
        load_ckplus(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"has no folder for anger, .*; found no folder"):
        load_ckplus(tmp_path)


def test_the_classes_are_in_the_order_of_the_official_codes() -> None:
    expected = ("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")
    assert expected == CLASSES
