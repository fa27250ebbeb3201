"""The script that crops faces, beside a tree of drawn ones and the landmarks of all of them."""

import csv
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import align_faces
from fer.alignment.align import align_by_eyes
from fer.data.action_units import UNITS
from fer.data.drawing.face import draw_face, project_eyes
from fer.data.drawing.person import Person
from fer.data.drawing.setting import Setting
from fer.data.drawing.view import View
from fer.report.pictures import as_tensor, read_picture
from image_trees import write_text

FIRST, SECOND, THIRD = "happy/S01_a.jpg", "happy/S01_b.png", "sad/deep/S02_a.png"
VIEWS = {FIRST: View(roll=0.2), SECOND: View(shift_x=0.05), THIRD: View(roll=-0.3, zoom=0.8)}
SIZE = 120
FACES, OUT, EYES = Path("faces"), Path("out"), Path("eyes.csv")


def points_of(name: str) -> list[float]:
    flat: list[float] = project_eyes(Person(), VIEWS[name], SIZE).ravel().tolist()
    return flat


@cache
def draw(name: str) -> Image.Image:
    return draw_face(Person(), dict.fromkeys(UNITS, 0.0), VIEWS[name], Setting(), SIZE)


@pytest.fixture(autouse=True)
def _beside_the_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_text(FACES / "happy" / "notes.txt", "no picture")
    (FACES / "happy" / ".hidden.png").write_bytes(b"")
    (FACES / "sad" / "deep").mkdir(parents=True)
    for name in VIEWS:
        draw(name).save(FACES / name, quality=95)
    write_landmarks({name: points_of(name) for name in VIEWS})


def write_landmarks(rows: dict[str, list[float]], header: str = "") -> None:
    lines = [f"{name},{','.join(map(str, points))}" for name, points in rows.items()]
    EYES.write_text("\n".join([*([header] if header else []), *lines]))


def align(*more: str, faces: Path = FACES, out: Path = OUT, eyes: Path = EYES) -> int:
    marked = () if "--detector" in more else ("--landmarks", str(eyes))
    return align_faces.main([str(faces), str(out), "--device", "cpu", *marked, *more])


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def crop_of(picture: Image.Image, name: str) -> Tensor:
    left, right = torch.tensor(points_of(name)).reshape(2, 2)
    return align_by_eyes(as_tensor(picture), left, right, 256)


def test_keeps_the_tree_and_crops_by_the_eyes(capsys: pytest.CaptureFixture[str]) -> None:
    assert align() == 0
    made = {path.relative_to(OUT).as_posix() for path in OUT.rglob("*.png")}
    assert made == {"happy/S01_a.png", "happy/S01_b.png", "sad/deep/S02_a.png"}
    for name in VIEWS:
        crop = as_tensor(read_picture((OUT / name).with_suffix(".png")))
        assert torch.equal(crop, crop_of(read_picture(FACES / name), name))
    assert rows_of(OUT / "not_aligned.csv") == [["name", "reason"]]
    assert "3 aligned, 0 done before" in capsys.readouterr().out


def test_goes_on_where_it_was_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    align()
    kept, lost = OUT / "happy" / "S01_a.png", OUT / "happy" / "S01_b.png"
    before = lost.read_bytes()
    lost.unlink()
    kept.write_bytes(b"what lies there is not touched")
    capsys.readouterr()
    assert align() == 0
    assert "1 aligned, 2 done before" in capsys.readouterr().out
    assert kept.read_bytes() == b"what lies there is not touched"
    assert lost.read_bytes() == before
    assert sorted(row[0] for row in rows_of(OUT / "eyes.csv")) == sorted([*VIEWS, "name"])
    with pytest.raises(SystemExit, match=r"holds crops by .*'size': 256.*use --overwrite"):
        align("--size", "128")
    assert align("--size", "128", "--overwrite") == 0
    assert "3 aligned, 0 done before" in capsys.readouterr().out
    assert read_picture(kept).size == (128, 128)


def test_the_eyes_it_writes_are_landmarks_it_reads() -> None:
    align()
    assert align(out=Path("again"), eyes=OUT / "eyes.csv") == 0
    for path in OUT.rglob("*.png"):
        pictures = (Image.open(each) for each in (path, Path("again") / path.relative_to(OUT)))
        one, other = (np.asarray(picture).astype(int) for picture in pictures)
        assert abs(one - other).max() <= 1  # they are written to a thousandth of a pixel


def test_names_what_it_cannot_align_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    good = points_of(FIRST)
    beyond = "the right eye (125, 50) lies outside the picture of 120 x 120"
    wrong: dict[str, tuple[list[float], str]] = {
        "broken.jpg": (good, "cannot be decoded"),
        "deep.png": (good, "expected 8 bits a channel, got mode I;16"),
        "outside.png": ([50, 50, SIZE + 5, 50], beyond),
        "swapped.png": (good[2:] + good[:2], "left eye lies right of"),
        "unknown.png": ([], "does not name it"),
    }
    for name in wrong:
        draw(FIRST).save(FACES / name)
    (FACES / "broken.jpg").write_bytes(b"no picture")
    Image.fromarray(np.zeros((9, 9), dtype=np.uint16)).save(FACES / "deep.png")
    rows = {name: points_of(name) for name in VIEWS}
    rows |= {name: points for name, (points, _) in wrong.items() if points}
    write_landmarks(rows, header="file,left_x,left_y,right_x,right_y")
    assert align() == 1
    said = capsys.readouterr()
    assert "3 aligned" in said.out
    assert "5 not aligned" in said.err
    reasons = dict(rows_of(OUT / "not_aligned.csv")[1:])
    for name, (_, reason) in wrong.items():
        assert reason in reasons[name]
        (FACES / name).unlink()
    # What failed is tried again, and is no failure any more once it is mended.
    assert align() == 0
    assert rows_of(OUT / "not_aligned.csv") == [["name", "reason"]]


def test_gray_stays_gray_and_exif_is_heeded() -> None:
    upright = draw(FIRST).convert("L")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    upright.rotate(90, expand=True).save(FACES / SECOND, exif=exif)
    write_landmarks({"happy/S01_b": points_of(FIRST)})
    align()
    crop = Image.open(OUT / "happy" / "S01_b.png")
    assert crop.mode == "L"
    assert torch.equal(as_tensor(crop), crop_of(upright, FIRST))


def test_rafdb_comes_with_landmarks() -> None:
    original, manual = Path("basic/Image/original"), Path("basic/Annotation/manual")
    x1, y1, x2, y2 = points_of(SECOND)
    points = f"{x1}\t{y1}\n{x2}\t{y2}\n60\t70\n50\t90\n70\t90\n0\n1\n2\n"
    write_text(manual / "train_00001_manu_attri.txt", points)
    original.mkdir(parents=True)
    draw(SECOND).save(original / "train_00001.jpg")
    assert align(faces=original, eyes=manual) == 0
    (row,) = rows_of(OUT / "eyes.csv")[1:]
    assert [float(each) for each in row[1:5]] == pytest.approx([x1, y1, x2, y2], abs=1e-3)


class Fake:
    """A detector that always sees the same two faces, but for pictures of some widths."""

    def detect(self, image: Image.Image) -> Any:
        assert image.mode == "RGB"
        if image.width == 10:
            raise RuntimeError("too small")
        seen = [[(40, 50), (80, 52), (60, 70)], [(1, 2), (3, 2), (2, 3)]]
        return {20: None, 30: [[1.0, 2.0]]}.get(image.width, seen)


def use_package(monkeypatch: pytest.MonkeyPatch, package: str, **content: Any) -> None:
    monkeypatch.setitem(sys.modules, package, SimpleNamespace(**content))


def test_a_detector_of_ones_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_package(monkeypatch, "faked", Fake=Fake)
    for width in (10, 20, 30):
        Image.new("L", (width, 12)).save(FACES / f"{width}.png")
    assert align("--detector", "faked:Fake") == 1
    assert rows_of(OUT / "eyes.csv")[1] == [FIRST, "40.0", "50.0", "80.0", "52.0", "2"]
    assert "3 show more than one face" in capsys.readouterr().out
    reasons = dict(rows_of(OUT / "not_aligned.csv")[1:])
    assert reasons["10.png"] == "the detector faked:Fake failed: too small"
    assert reasons["20.png"] == "no face found"
    assert "must give points (faces, 2 or more, 2), got (1, 2)" in reasons["30.png"]


def test_mtcnn_gives_the_largest_of_the_sure_faces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def detect(image: Image.Image, landmarks: bool) -> tuple[np.ndarray, ...]:
        boxes = np.array([[0, 0, 90, 90], [0, 0, 20, 20], [0, 0, 50, 50]], dtype=object)
        points = np.array([5 * [(x, 9.0)] for x in (1.0, 2.0, 3.0)], dtype=object)
        points[:, 1, 0] += 30
        return boxes, np.array([0.75, 0.99, 0.95]), points

    def network(keep_all: bool, device: torch.device) -> SimpleNamespace:
        assert keep_all
        return SimpleNamespace(detect=detect)

    use_package(monkeypatch, "facenet_pytorch", MTCNN=network)
    assert align("--detector", "mtcnn") == 0
    assert rows_of(OUT / "eyes.csv")[1][1:] == ["3.0", "9.0", "33.0", "9.0", "3"]


def without_pictures() -> None:
    for path in FACES.rglob("*.*g"):
        path.unlink()


SAME = "happy/S01_a.jpg and happy/S01_a.png would have one and the same crop"
EXPECTED = "line 1: expected name,left_x,left_y,right_x,right_y, got"


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda: draw(FIRST).save(FACES / "happy" / "S01_a.png"), SAME),
        (without_pictures, "holds no pictures"),
        (lambda: write_text(OUT / "thesis.txt", "mine"), "is not empty, and not from this program"),
        (lambda: EYES.write_text("a.png,1,2,3\n"), EXPECTED),
        (lambda: EYES.write_text("name,right_x,right_y,left_x,left_y\n"), EXPECTED),
        (lambda: EYES.write_text(2 * "a.png,1,2,3,4\n"), "line 2: a.png is listed a second time"),
    ],
)
def test_rejects_before_the_first_crop(prepare: Callable[[], object], message: str) -> None:
    prepare()
    with pytest.raises(SystemExit, match=message):
        align()
    assert not list(OUT.rglob("*.png"))


def test_rejects_writing_among_the_pictures() -> None:
    with pytest.raises(SystemExit, match="OUT must not lie in the folder of pictures"):
        align(out=FACES / "aligned")


def test_says_how_to_get_a_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "facenet_pytorch", None)
    use_package(monkeypatch, "faked", nothing=object)
    for detector, message in {
        "mtcnn": "pip install --no-deps facenet-pytorch",
        "haar": "must be mtcnn or MODULE:NAME, got haar",
        "nowhere:Detector": "--detector nowhere:Detector: No module named",
        "faked:nothing": "without a method detect",
    }.items():
        with pytest.raises(SystemExit, match=message):
            align("--detector", detector)


def test_transparent_pictures_are_read_over_white() -> None:
    picture = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    picture.putpixel((1, 1), (10, 20, 30, 255))
    picture.save("a.png")
    read = read_picture(Path("a.png"))
    assert (read.getpixel((0, 0)), read.getpixel((1, 1))) == ((255, 255, 255), (10, 20, 30))
    picture.convert("RGB").quantize().save("palette.png")
    picture.convert("1").save("black.png")
    assert read_picture(Path("palette.png")).mode == "RGB"
    assert read_picture(Path("black.png")).mode == "L"
