"""The reader of CK+, on trees in its authors' layout and in that of the 48 x 48 dump."""

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from fer.data.ckplus import CLASSES, IMAGES, load_ckplus
from image_trees import class_names, levels, write_ck48, write_image, write_text, write_tree

# One sequence of each class; S005/002 has a folder for its label but none in it, as most have.
CODES = {f"S{number:03}/001": code for number, code in enumerate(range(7, 0, -1), start=5)}
UNLABELED = "S005/002"
FRAMES = 5


def write_official(root: Path, images: str = "", emotions: str = "") -> None:
    """Write both halves of the official CK+, every frame of its own gray level."""
    stems = [f"{name}/{name.replace('/', '_')}" for name in sorted([*CODES, UNLABELED])]
    names = (f"{stem}_{frame:08}.png" for stem in stems for frame in range(1, FRAMES + 1))
    write_tree(root / images / "cohn-kanade-images", names)
    (root / emotions / label_of(UNLABELED)).parent.mkdir(parents=True)
    for name, code in CODES.items():
        label = root / emotions / label_of(name)
        write_text(label, f"   {code}.0000000e+00\n")
        label.with_name(f"._{label.name}").write_bytes(b"\0\5\x16\7")
        (images_of(root / images, name) / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")


def images_of(root: Path, sequence: str) -> Path:
    return root / "cohn-kanade-images" / sequence


def label_of(sequence: str, frame: int = FRAMES) -> str:
    return f"Emotion/{sequence}/{sequence.replace('/', '_')}_{frame:08}_emotion.txt"


@pytest.mark.parametrize(
    ("images", "emotions"),
    [("", ""), (IMAGES[1].split("/")[0], "Emotion_labels")],
    ids=["as-unpacked-together", "as-unpacked-apart"],
)
def test_reads_the_last_frames_of_labeled_clips(tmp_path: Path, images: str, emotions: str) -> None:
    write_official(tmp_path, images, emotions)
    database = load_ckplus(tmp_path, check_counts=False)
    faces = database.splits["all"]
    in_order = ("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")
    assert (database.name, database.classes) == ("ckplus", in_order)
    assert faces.images.shape == (21, 1, 4, 4)
    assert faces.names[:3] == tuple(f"S005/001/S005_001_{frame:08}.png" for frame in (3, 4, 5))
    # The five frames of the sequence without a label are levels 5 to 9.
    assert levels(database)[:6] == [2, 3, 4, 12, 13, 14]
    assert class_names(database)[::3] == list(reversed(in_order))
    assert (faces.subjects or ())[::3] == tuple(name[:4] for name in CODES)


def test_frames_of_color_become_gray_ones(tmp_path: Path) -> None:
    write_official(tmp_path)
    for path in images_of(tmp_path, "S005/001").glob("*.png"):
        write_image(path, 200, mode="RGB")
    assert levels(load_ckplus(tmp_path, check_counts=False))[:4] == [200, 200, 200, 12]


@pytest.mark.parametrize(
    ("gone", "match"),
    [
        ("Emotion", r"holds the frames of CK\+ alone; looked for Emotion, Emotion_labels/Emotion"),
        ("cohn-kanade-images", r"holds the labels of CK\+ alone; looked for cohn-kanade-images, "),
        ("Emotion/*/*", r"Emotion holds no label like S005/001/\*_emotion"),
    ],
)
def test_half_of_the_official_layout_is_named(tmp_path: Path, gone: str, match: str) -> None:
    write_official(tmp_path)
    for folder in tmp_path.glob(gone):
        shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError, match=match):
        load_ckplus(tmp_path)


COUNTS = (
    "clips: expected 327, found 7; images: expected 981, found 21; people: expected 118, found 7"
)
CODE = "S005_002_.*: expected a code from 1 to 7, got"


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("notes.txt", "", rf"ckplus in .*{COUNTS}\); to go on .*--no-check-counts"),
        ("CK+48/notes.txt", "", r"holds the official CK\+ and CK\+48; move one elsewhere"),
        (label_of("S005/001", 9), "1.0", r"9_emotion\.txt: S005/001 has more than one label"),
        *(
            (label_of(UNLABELED), text, f"{CODE} {re.escape(repr(text))}$")
            for text in ("0.0000000e+00", "8.0", "3.5", "nan", "happy", "1 2")
        ),
    ],
)
def test_refuses_what_is_not_the_whole_official_database(
    tmp_path: Path, name: str, text: str, match: str
) -> None:
    write_official(tmp_path)
    write_text(tmp_path / name, text)
    with pytest.raises(ValueError, match=match):
        load_ckplus(tmp_path)


def test_a_labeled_sequence_without_frames_is_named(tmp_path: Path) -> None:
    write_official(tmp_path)
    write_text(tmp_path / label_of("S099/001"), "1.0")
    with pytest.raises(FileNotFoundError, match=r"no folder .*S099.001 .*\(--no-check-counts"):
        load_ckplus(tmp_path)
    assert len(load_ckplus(tmp_path, check_counts=False).splits["all"]) == 21


@pytest.fixture(scope="module")
def ck48(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ck48(tmp_path_factory.mktemp("ck"))


@pytest.mark.parametrize("inside", ["", "CK+48"])
def test_reads_the_whole_dump(ck48: Path, inside: str) -> None:
    database = load_ckplus(ck48 / inside)
    faces = database.splits["all"]
    assert faces.images.shape == (981, 1, 48, 48)
    people = tuple(name.split("/")[1].split("_")[0] for name in faces.names)
    assert faces.subjects == people
    assert (len(set(people)), len(set(faces.names))) == (118, 981)
    counts = (3 * clips for clips in (45, 18, 59, 25, 69, 28, 83))
    assert Counter(class_names(database)) == dict(zip(CLASSES, counts, strict=True))
