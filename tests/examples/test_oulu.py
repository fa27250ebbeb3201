"""The reader of Oulu-CASIA, on trees in the layouts of its original and its cropped images."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from fer.data.oulu import CLASSES, load_oulu
from image_trees import class_names, write_image

FOLDERS = ("Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise")
ORIGINAL, CROPPED = "OriginalImg/VL/Strong", "PreProcess Img/VL_Acropped/Strong"
INFRARED = "NI/Strong"
NOT_VISIBLE = r"Strong is of infrared images; name the folder in VL"


def write_people(base: Path, people: int, frames: int = 4) -> None:
    base.mkdir(parents=True)
    for person in range(1, people + 1):
        for label, expression in enumerate(FOLDERS):
            for frame in range(frames):
                path = base / f"P{person:03}" / expression / f"{frame:03}.jpeg"
                write_image(path, 60 + 20 * label, mode="RGB")


@pytest.mark.parametrize(
    ("base", "root"),
    [
        *((ORIGINAL, root) for root in (".", "OriginalImg", "OriginalImg/VL", ORIGINAL)),
        (f"B_{ORIGINAL}", "."),
        (CROPPED, "."),
        (CROPPED, "PreProcess Img"),
        ("VL_Acropped/Strong", "VL_Acropped"),
    ],
)
def test_reads_the_last_frames_in_visible_strong_light(
    tmp_path: Path, base: str, root: str
) -> None:
    write_people(tmp_path / base, people=2, frames=11)
    for part, other in (("Strong", "Dark"), ("Strong", "Weak"), ("VL", "NI")):
        write_image(tmp_path / base.replace(part, other) / "P001" / "Anger" / "000.jpeg")
    database = load_oulu(tmp_path / root, check_counts=False)
    faces = database.splits["all"]
    assert (database.name, database.classes) == ("oulu", CLASSES)
    assert faces.images.shape == (36, 3, 4, 4)
    assert faces.names[:3] == tuple(f"P001/Anger/{frame:03}.jpeg" for frame in (8, 9, 10))
    assert faces.subjects == ("P001",) * 18 + ("P002",) * 18
    assert class_names(database) == [name for name in CLASSES for _ in range(3)] * 2
    # Each expression has a level of its own, which a JPEG keeps to a step or two.
    wanted = (60 + 20 * faces.labels)[:, None, None, None]
    assert (faces.images.int() - wanted).abs().max() <= 2


def test_reads_the_whole_database_and_notices_what_is_missing(tmp_path: Path) -> None:
    write_people(tmp_path / ORIGINAL, people=80, frames=3)
    database = load_oulu(tmp_path)
    assert Counter(class_names(database)) == dict.fromkeys(CLASSES, 240)
    assert len(set(database.splits["all"].subjects or ())) == 80
    shutil.rmtree(tmp_path / ORIGINAL / "P043" / "Fear")
    match = r"P043 has no folder for fear; .*--no-check-counts"
    with pytest.raises(FileNotFoundError, match=match):
        load_oulu(tmp_path)
    assert load_oulu(tmp_path, check_counts=False).sizes == {"all": 1437}
    shutil.rmtree(tmp_path / ORIGINAL / "P043")
    match = (
        r"clips: expected 480, found 474; images: expected 1,440, found 1,422; "
        r"people: expected 80, found 79.*--no-check-counts"
    )
    with pytest.raises(ValueError, match=match):
        load_oulu(tmp_path)


@pytest.mark.parametrize(
    ("people", "root", "error", "match"),
    [
        ({}, "nowhere", FileNotFoundError, r"root: there is no folder .*nowhere"),
        ({INFRARED: 1}, ".", FileNotFoundError, r"no Oulu-CASIA in .*; looked for OriginalImg/VL/"),
        ({INFRARED: 1}, "NI", ValueError, NOT_VISIBLE),
        ({INFRARED: 1}, INFRARED, ValueError, NOT_VISIBLE),
        ({"NI_Acropped/Strong": 1}, "NI_Acropped", ValueError, NOT_VISIBLE),
        ({ORIGINAL: 1, CROPPED: 1}, ".", ValueError, f"holds {ORIGINAL}, {CROPPED}; name the one"),
        ({ORIGINAL: 0}, ".", ValueError, "no clip with frames of anger, disgust, .*, surprise"),
    ],
)
def test_a_root_must_hold_one_folder_of_people_in_visible_light(
    people: dict[str, int], root: str, error: type[Exception], match: str, tmp_path: Path
) -> None:
    for base, number in people.items():
        write_people(tmp_path / base, number)
    with pytest.raises(error, match=match.replace("/", r"[/\\]")):
        load_oulu(tmp_path / root)
