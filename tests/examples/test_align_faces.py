import csv
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import align_faces
from fer.alignment.align import align_by_eyes
from fer.data.action_units import UNITS
from fer.data.drawing.face import draw_face, eyes_of
from fer.data.drawing.person import Person
from fer.data.drawing.setting import Setting
from fer.data.drawing.view import View
from fer.report.pictures import as_tensor, read_picture

VIEWS = {
    "happy/S01_a.jpg": View(roll=0.2),
    "happy/S01_b.png": View(right=0.05),
    "sad/deep/S02_a.png": View(roll=-0.3, zoom=0.8),
}
SIZE = 120
CPU = ("--device", "cpu")


def points_of(name: str) -> list[float]:
    flat: list[float] = eyes_of(Person(), VIEWS[name], SIZE).ravel().tolist()
    return flat


def draw(name: str) -> Image.Image:
    return draw_face(Person(), dict.fromkeys(UNITS, 0.0), VIEWS[name], Setting(), SIZE)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tree of drawn faces, and beside it the landmarks of all of them."""
    root = tmp_path / "faces"
    for name in VIEWS:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        draw(name).save(root / name, quality=95)
    (root / "happy" / ".hidden.png").write_bytes(b"")
    (root / "happy" / "notes.txt").write_text("no picture")
    write_landmarks(root, {name: points_of(name) for name in VIEWS})
    return root


def write_landmarks(root: Path, rows: dict[str, list[float]], header: str = "") -> None:
    lines = [f"{name},{','.join(map(str, points))}" for name, points in rows.items()]
    (root.parent / "eyes.csv").write_text("\n".join([*([header] if header else []), *lines]))


def align(root: Path, *arguments: str) -> int:
    marked = () if "--detector" in arguments else ("--landmarks", str(root.parent / "eyes.csv"))
    return align_faces.main([*CPU, str(root), str(root.parent / "out"), *marked, *arguments])


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_keeps_the_tree_and_crops_by_the_eyes(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert align(source) == 0
    out = source.parent / "out"
    made = {path.relative_to(out).as_posix() for path in out.rglob("*.png")}
    assert made == {"happy/S01_a.png", "happy/S01_b.png", "sad/deep/S02_a.png"}
    for name in VIEWS:
        crop = read_picture((out / name).with_suffix(".png"))
        left, right = torch.tensor(points_of(name)).reshape(2, 2)
        want = align_by_eyes(as_tensor(read_picture(source / name)), left, right, 256)
        assert torch.equal(as_tensor(crop), want)
    assert rows_of(out / "not_aligned.csv") == [["name", "reason"]]
    assert "3 aligned, 0 done before" in capsys.readouterr().out


def test_goes_on_where_it_was_stopped(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    align(source)
    out = source.parent / "out"
    kept, lost = out / "happy" / "S01_a.png", out / "happy" / "S01_b.png"
    before = lost.read_bytes()
    lost.unlink()
    kept.write_bytes(b"what lies there is not touched")
    capsys.readouterr()
    assert align(source) == 0
    assert "1 aligned, 2 done before" in capsys.readouterr().out
    assert kept.read_bytes() == b"what lies there is not touched"
    assert lost.read_bytes() == before
    assert sorted(row[0] for row in rows_of(out / "eyes.csv")) == sorted([*VIEWS, "name"])
    assert align(source, "--overwrite") == 0
    assert "3 aligned, 0 done before" in capsys.readouterr().out
    assert read_picture(kept).size == (256, 256)


def test_the_eyes_it_writes_are_landmarks_it_reads(source: Path) -> None:
    align(source)
    first, again = source.parent / "out", source.parent / "again"
    assert (
        align_faces.main([*CPU, str(source), str(again), "--landmarks", str(first / "eyes.csv")])
        == 0
    )
    for path in first.rglob("*.png"):
        one, other = (
            np.asarray(Image.open(root / path.relative_to(first))).astype(int)
            for root in (first, again)
        )
        assert abs(one - other).max() <= 1  # they are written to a thousandth of a pixel


def test_names_what_it_cannot_align_and_why(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = points_of("happy/S01_a.jpg")
    (source / "broken.jpg").write_bytes(b"no picture")
    for name in ("outside.png", "swapped.png", "unknown.png"):
        draw("happy/S01_a.jpg").save(source / name)
    Image.fromarray(np.zeros((9, 9), dtype=np.uint16)).save(source / "deep.png")
    rows = {name: points_of(name) for name in VIEWS}
    rows |= dict.fromkeys(("broken.jpg", "deep.png"), good)
    rows |= {"outside.png": [50, 50, SIZE + 5, 50], "swapped.png": good[2:] + good[:2]}
    write_landmarks(source, rows, header="file,left_x,left_y,right_x,right_y")
    assert align(source) == 1
    said = capsys.readouterr()
    assert "3 aligned" in said.out
    assert "5 not aligned" in said.err
    reasons = dict(rows_of(source.parent / "out" / "not_aligned.csv")[1:])
    assert "cannot be decoded" in reasons["broken.jpg"]
    assert "expected 8 bits a channel, got mode I;16" in reasons["deep.png"]
    assert "the right eye (125, 50) lies outside the picture of 120 x 120" in reasons["outside.png"]
    assert "left eye lies right of" in reasons["swapped.png"]
    assert "does not name it" in reasons["unknown.png"]
    # What failed is tried again, and is no failure any more once it is mended.
    for name in ("broken.jpg", "deep.png", "unknown.png", "outside.png", "swapped.png"):
        (source / name).unlink()
    assert align(source) == 0
    assert rows_of(source.parent / "out" / "not_aligned.csv") == [["name", "reason"]]


def test_gray_stays_gray_and_exif_is_heeded(source: Path) -> None:
    upright = draw("happy/S01_a.jpg").convert("L")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    upright.rotate(90, expand=True).save(source / "happy" / "S01_b.png", exif=exif)
    write_landmarks(source, {"happy/S01_b": points_of("happy/S01_a.jpg")})
    align(source)
    crop = Image.open(source.parent / "out" / "happy" / "S01_b.png")
    assert crop.mode == "L"
    left, right = torch.tensor(points_of("happy/S01_a.jpg")).reshape(2, 2)
    assert torch.equal(as_tensor(crop), align_by_eyes(as_tensor(upright), left, right, 256))


def test_rafdb_comes_with_landmarks(source: Path, tmp_path: Path) -> None:
    basic = tmp_path / "basic"
    original, manual = basic / "Image" / "original", basic / "Annotation" / "manual"
    original.mkdir(parents=True)
    manual.mkdir(parents=True)
    name = "happy/S01_b.png"
    draw(name).save(original / "train_00001.jpg")
    x1, y1, x2, y2 = points_of(name)
    points = f"{x1}\t{y1}\n{x2}\t{y2}\n60\t70\n50\t90\n70\t90\n0\n1\n2\n"
    (manual / "train_00001_manu_attri.txt").write_text(points)
    out = tmp_path / "aligned"
    assert align_faces.main([*CPU, str(original), str(out), "--landmarks", str(manual)]) == 0
    (row,) = rows_of(out / "eyes.csv")[1:]
    assert [float(each) for each in row[1:5]] == pytest.approx([x1, y1, x2, y2], abs=1e-3)


FAKE = """
class Fake:
    def detect(self, image):
        assert image.mode == "RGB"
        if image.width == 10:
            raise RuntimeError("too small")
        if image.width == 20:
            return None
        if image.width == 30:
            return [[1.0, 2.0]]
        return [[(40, 50), (80, 52), (60, 70)], [(1, 2), (3, 2), (2, 3)]]

def nothing():
    return object()
"""


def test_a_detector_of_ones_own(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (source.parent / "faked.py").write_text(FAKE)
    monkeypatch.syspath_prepend(str(source.parent))
    for width in (10, 20, 30):
        Image.new("L", (width, 12)).save(source / f"{width}.png")
    assert align(source, "--detector", "faked:Fake") == 1
    out = source.parent / "out"
    assert rows_of(out / "eyes.csv")[1] == ["happy/S01_a.jpg", "40.0", "50.0", "80.0", "52.0", "2"]
    assert "3 show more than one face" in capsys.readouterr().out
    reasons = dict(rows_of(out / "not_aligned.csv")[1:])
    assert reasons["10.png"] == "the detector faked:Fake failed: too small"
    assert reasons["20.png"] == "no face found"
    assert "must give points (faces, 2 or more, 2), got (1, 2)" in reasons["30.png"]


def test_mtcnn_is_asked_for_the_largest_of_the_faces_it_is_sure_of(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Network:
        def __init__(self, keep_all: bool, device: torch.device) -> None:
            assert keep_all

        def detect(self, image: Image.Image, landmarks: bool) -> tuple[np.ndarray, ...]:
            boxes = np.array([[0, 0, 90, 90], [0, 0, 20, 20], [0, 0, 50, 50]], dtype=object)
            points = np.array([5 * [(x, 9.0)] for x in (1.0, 2.0, 3.0)], dtype=object)
            points[:, 1, 0] += 30
            return boxes, np.array([0.75, 0.99, 0.95]), points

    package = types.ModuleType("facenet_pytorch")
    monkeypatch.setattr(package, "MTCNN", Network, raising=False)
    monkeypatch.setitem(sys.modules, "facenet_pytorch", package)
    assert align(source, "--detector", "mtcnn") == 0
    row = rows_of(source.parent / "out" / "eyes.csv")[1]
    assert row[1:] == ["3.0", "9.0", "33.0", "9.0", "3"]


def two_of_one_name(source: Path) -> None:
    draw("happy/S01_a.jpg").save(source / "happy" / "S01_a.png")


def no_pictures(source: Path) -> None:
    for path in source.rglob("*.*g"):
        path.unlink()


def foreign_files(source: Path) -> None:
    (source.parent / "out").mkdir()
    (source.parent / "out" / "thesis.txt").write_text("mine")


def landmarks(text: str) -> Callable[[Path], None]:
    def write(source: Path) -> None:
        (source.parent / "eyes.csv").write_text(text)

    return write


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (two_of_one_name, r"happy/S01_a.jpg and happy/S01_a.png would have one and the same crop"),
        (no_pictures, "holds no pictures"),
        (foreign_files, "is not empty, and not from this program"),
        (landmarks("a.png,1,2,3\n"), "line 1: expected name,left_x,left_y,right_x,right_y, got"),
        (landmarks("name,right_x,right_y,left_x,left_y\n"), "line 1: expected name,left_x"),
        (landmarks("a.png,1,2,3,4\na.png,1,2,3,4\n"), "line 2: a.png is listed a second time"),
    ],
)
def test_rejects_before_the_first_crop(
    source: Path, prepare: Callable[[Path], None], message: str
) -> None:
    prepare(source)
    with pytest.raises(SystemExit, match=message):
        align(source)
    assert not list((source.parent / "out").rglob("*.png"))


def test_rejects_crops_of_two_kinds_in_one_folder(source: Path) -> None:
    align(source)
    with pytest.raises(SystemExit, match=r"holds crops by .*'size': 256.*use --overwrite"):
        align(source, "--size", "128")
    assert align(source, "--size", "128", "--overwrite") == 0
    assert read_picture(source.parent / "out" / "happy" / "S01_a.png").size == (128, 128)


def test_rejects_writing_among_the_pictures(source: Path) -> None:
    arguments = [str(source), str(source / "aligned"), "--detector", "mtcnn"]
    with pytest.raises(SystemExit, match="OUT must not lie in the folder of pictures"):
        align_faces.main([*CPU, *arguments])


def test_says_how_to_get_a_detector(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "facenet_pytorch", None)
    with pytest.raises(SystemExit, match="pip install --no-deps facenet-pytorch"):
        align(source, "--detector", "mtcnn")
    with pytest.raises(SystemExit, match="must be mtcnn or MODULE:NAME, got haar"):
        align(source, "--detector", "haar")
    with pytest.raises(SystemExit, match="--detector nowhere:Detector: No module named"):
        align(source, "--detector", "nowhere:Detector")
    (source.parent / "faked.py").write_text(FAKE)
    monkeypatch.syspath_prepend(str(source.parent))
    with pytest.raises(SystemExit, match="without a method detect"):
        align(source, "--detector", "faked:nothing")


def test_transparent_pictures_are_read_over_white(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    picture.putpixel((1, 1), (10, 20, 30, 255))
    picture.save(tmp_path / "a.png")
    read = read_picture(tmp_path / "a.png")
    assert read.getpixel((0, 0)) == (255, 255, 255)
    assert read.getpixel((1, 1)) == (10, 20, 30)
    picture.convert("RGB").quantize().save(tmp_path / "palette.png")
    assert read_picture(tmp_path / "palette.png").mode == "RGB"
    picture.convert("1").save(tmp_path / "black.png")
    assert read_picture(tmp_path / "black.png").mode == "L"
