"""Every command on drawn faces that are laid out on disk as each database is."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from torchvision.transforms.v2.functional import to_pil_image

import fer_crossval
import fer_rafdb
from fer.data.faces import FaceSet
from fer.data.ferplus import FOLDERS
from fer.data.rafdb import CLASSES as RAFDB_CLASSES
from fer.data.synthetic import synthetic_faces
from fer.data.votes import CLASSES as FERPLUS_CLASSES

SIDE = 32
BASIC = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
QUICK = ["--image-size", "28", "--batch-size", "14", "--epochs", "1", "--no-check-counts"]
QUICK += ["--device", "cpu"]

Writer = Callable[[Path, FaceSet], None]


@pytest.fixture(scope="module")
def drawn() -> FaceSet:
    """Twelve people with each of the seven expressions."""
    return synthetic_faces(84, 0, size=SIDE).splits["train"]


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "out"
    shutil.rmtree(tmp_path / "out", ignore_errors=True)  # a run takes 400 MiB


def save(faces: FaceSet, index: int, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    to_pil_image(faces.images[index]).save(path)


def named(faces: FaceSet, expressions: Sequence[str]) -> Iterator[tuple[int, str, int]]:
    """Give the index, the expression and the person of all faces of some expressions."""
    for index, label in enumerate(faces.labels.tolist()):
        if RAFDB_CLASSES[label] in expressions:
            yield index, RAFDB_CLASSES[label], index // len(RAFDB_CLASSES) + 1


def write_rafdb(root: Path, faces: FaceSet) -> None:
    lines = []
    for index, expression, person in named(faces, RAFDB_CLASSES):
        split = "test" if person > 8 else "train"
        name = f"{split}_{index:05}"
        save(faces, index, root / "basic/Image/aligned" / f"{name}_aligned.jpg")
        lines.append(f"{name}.jpg {RAFDB_CLASSES.index(expression) + 1}")
    labels = root / "basic/EmoLabel/list_patition_label.txt"
    labels.parent.mkdir()
    labels.write_text("\n".join(lines))


def write_ferplus(root: Path, faces: FaceSet) -> None:
    lines: dict[str, list[str]] = {split: [] for split in FOLDERS}
    for index, expression, person in named(faces, RAFDB_CLASSES):
        split = ("train", "train", "valid", "test")[person % 4]
        name = f"fer{index:07}.png"
        save(faces, index, root / FOLDERS[split] / name)
        votes = [0] * 10
        votes[FERPLUS_CLASSES.index(expression)] = 10
        lines[split].append(f'{name},"(0, 0, 48, 48)",{",".join(map(str, votes))}')
    for split, rows in lines.items():
        (root / FOLDERS[split] / "label.csv").write_text("\n".join(rows) + "\n")


def write_sfew(root: Path, faces: FaceSet) -> None:
    words = {"happiness": "Happy", "sadness": "Sad", "anger": "Angry"}
    for index, expression, person in named(faces, RAFDB_CLASSES):
        split = "Val" if person > 8 else "Train"
        save(
            faces,
            index,
            root / split / words.get(expression, expression.title()) / f"Film_{index:09}.png",
        )


def write_folder(root: Path, faces: FaceSet) -> None:
    for index, expression, person in named(faces, ("happiness", "sadness")):
        split = "test" if person > 8 else "train"
        save(faces, index, root / split / expression / f"{index}.png")


def write_people(root: Path, faces: FaceSet) -> None:
    for index, expression, person in named(faces, BASIC):
        save(faces, index, root / expression / f"p{person}_{index}.png")


def write_ckplus(root: Path, faces: FaceSet) -> None:
    # Nobody is drawn with contempt: the neutral faces stand for it.
    codes = dict(zip(RAFDB_CLASSES, (7, 4, 3, 5, 6, 1, 2), strict=True))
    for index, expression, person in named(faces, RAFDB_CLASSES):
        place = Path(f"S{person:03}") / f"{codes[expression]:03}"
        names = [f"S{person:03}_{codes[expression]:03}_{frame:08}" for frame in range(1, 6)]
        for name in names:
            save(faces, index, root / "cohn-kanade-images" / place / f"{name}.png")
        label = root / "Emotion" / place / f"{names[-1]}_emotion.txt"
        label.parent.mkdir(parents=True)
        label.write_text(f"   {codes[expression]}.0000000e+00\n")


def write_mmi(root: Path, faces: FaceSet) -> None:
    for index, expression, person in named(faces, BASIC):
        clip = root / expression / f"S{person:03}-{index:03}"
        for frame in range(5):
            save(faces, index, clip / f"{frame:04}.png")


def write_oulu(root: Path, faces: FaceSet) -> None:
    for index, expression, person in named(faces, BASIC):
        clip = root / f"OriginalImg/VL/Strong/P{person:03}" / expression.title()
        for frame in range(4):
            save(faces, index, clip / f"{frame:03}.jpeg")


@pytest.mark.parametrize(
    ("dataset", "write", "options", "tested"),
    [
        ("rafdb", write_rafdb, [], 28),
        ("ferplus", write_ferplus, [], 21),
        ("sfew", write_sfew, [], 28),
        ("folder", write_folder, ["--classes", "sadness,happiness"], 8),
    ],
)
def test_trains_on_every_database_with_splits(
    dataset: str,
    write: Writer,
    options: list[str],
    tested: int,
    drawn: FaceSet,
    tmp_path: Path,
    out: Path,
) -> None:
    write(tmp_path / "data", drawn)
    data = ["--dataset", dataset, "--data", str(tmp_path / "data"), *options]

    summary = fer_rafdb.main([*data, *QUICK, "--out", str(out)])

    assert summary["faces"]["test"] == tested
    assert summary["best_chosen_on"] == ("valid" if dataset == "ferplus" else "test")
    assert (out / "evaluation.pt").is_file()


@pytest.mark.parametrize(
    ("dataset", "write", "options", "tested"),
    [
        ("ckplus", write_ckplus, [], 252),
        ("mmi", write_mmi, [], 216),
        ("oulu", write_oulu, [], 216),
        ("folder", write_people, ["--classes", ",".join(BASIC)], 72),
    ],
)
def test_cross_validates_every_database_without_splits(
    dataset: str,
    write: Writer,
    options: list[str],
    tested: int,
    drawn: FaceSet,
    tmp_path: Path,
    out: Path,
) -> None:
    write(tmp_path / "data", drawn)
    data = ["--dataset", dataset, "--data", str(tmp_path / "data"), "--folds", "2", *options]

    summary: dict[str, Any] = fer_crossval.main([*data, *QUICK, "--limit", "28", "--out", str(out)])

    assert summary["faces"] == tested
    assert sum(map(sum, summary["confusion"])) == tested
    assert json.loads((out / "summary.json").read_text())["folds"] == summary["folds"]
