import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import fer_rafdb
import predict
from fer.alignment.align import align_by_eyes
from fer.data import read_database
from fer.evaluation import predictions as evaluation
from fer.model import checkpoint
from fer.model.build import compute_outputs, load_trained
from fer.options import load_options
from fer.report.pictures import as_picture, as_tensor
from fer.training import augment

CPU = ["--device", "cpu"]
SMALL = [*CPU, "--faces", "64", "--image-size", "32", "--batch-size", "32", "--epochs", "1"]
Capture = pytest.CaptureFixture[str]
Faces = list[Path]
KEYS = ["image", "label", "probability", "probabilities", "intra_weights", "eyes", "note", "error"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "fdrl"
    fer_rafdb.main([*SMALL, "--out", str(folder)])
    return folder


@pytest.fixture(scope="module")
def faces(run: Path) -> Faces:
    """The run's own test faces, as files in one folder."""
    (run.parent / "faces").mkdir()
    split = read_database(load_options(run)).splits["test"]
    paths = [run.parent / "faces" / f"{name}.png" for name in split.names]
    for path, image in zip(paths, split.images, strict=True):
        as_picture(image).save(path)
    return paths


@pytest.fixture
def told(run: Path, capsys: Capture) -> Any:
    """What predict.py says with --json, having ended with a status."""

    def tell(*arguments: object, run: Path = run, status: int = 0) -> list[dict[str, Any]]:
        capsys.readouterr()
        assert predict.main([*CPU, *map(str, arguments), "--run", str(run), "--json"]) == status
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return tell


def copied(run: Path, folder: Path, which: str, **changes: Any) -> Path:
    """Make a run's folder with a checkpoint that is changed in places."""
    folder.mkdir()
    shutil.copy(run / "config.json", folder)
    state = checkpoint.read_checkpoint(run / "best.pt")
    checkpoint.write_checkpoint(folder / which, state | changes)
    return folder


def probabilities(said: list[dict[str, Any]]) -> torch.Tensor:
    return torch.tensor([list(each["probabilities"].values()) for each in said])


def test_says_what_the_run_said_of_its_own_test_faces(run: Path, faces: Faces, told: Any) -> None:
    said = told(faces[0].parent)
    kept = evaluation.read_evaluation(run / "evaluation.pt").evaluation
    assert [Path(each["image"]).stem for each in said] == [f"test_{i:05d}" for i in range(25)]
    torch.testing.assert_close(probabilities(said), torch.from_numpy(kept.probabilities))
    weights = torch.tensor([each["intra_weights"] for each in said])
    assert kept.intra_weights is not None
    torch.testing.assert_close(weights, torch.from_numpy(kept.intra_weights))
    classes = checkpoint.read_checkpoint(run / "last.pt")["classes"]
    assert [each["label"] for each in said] == [classes[i] for i in kept.predictions]
    for each in said:
        assert list(each) == KEYS
        assert list(each["probabilities"]) == classes
        assert each["probability"] == max(each["probabilities"].values())
    # And says it in any batch and order.
    for paths in (faces[6::-1], faces[4:5]):
        shares = probabilities(told(*paths, "--batch-size", "3"))
        want = kept.probabilities[[faces.index(path) for path in paths]]
        torch.testing.assert_close(shares, torch.from_numpy(want))


def test_names_what_it_cannot_read_and_predicts_the_rest(
    run: Path, faces: Faces, tmp_path: Path, told: Any, capsys: Capture
) -> None:
    content = bytearray(faces[0].read_bytes())
    content[-13] ^= 1  # the last byte of the pixels' checksum, before the chunk that ends a PNG
    (tmp_path / "broken.png").write_bytes(content)
    Image.new("I;16", (9, 9)).save(tmp_path / "deep.png")
    paths = [tmp_path / "broken.png", faces[0], tmp_path / "deep.png", tmp_path / "nowhere.png"]
    said = told(*paths, status=1)
    assert [each["label"] is None for each in said] == [True, False, True, True]
    assert all(list(each) == KEYS for each in said)
    assert "cannot be decoded" in said[0]["error"]
    assert said[1]["error"] is None
    assert "expected 8 bits a channel, got mode I;16" in said[2]["error"]
    assert said[3]["error"] == "there is no such file"
    assert predict.main([*CPU, *map(str, paths), "--run", str(run)]) == 1
    printed = capsys.readouterr()
    assert [line.split()[0] for line in printed.out.splitlines()[2:]] == [str(faces[0])]
    assert f"error: {tmp_path / 'broken.png'}: cannot be decoded" in printed.err
    assert "3 of 4 pictures not predicted" in printed.err


def test_a_picture_is_the_same_in_every_mode_and_direction(
    faces: Faces, tmp_path: Path, told: Any
) -> None:
    color = Image.open(faces[3])
    gray, exif = color.convert("L"), Image.Exif()
    exif[0x0112] = 3  # upside down
    color.rotate(180).save(tmp_path / "1_turned.png", exif=exif)
    same = [color, color.convert("RGBA"), gray, gray.convert("P"), gray.convert("RGB")]
    for number, picture in enumerate(same, start=2):
        picture.save(tmp_path / f"{number}.png")
    in_color, in_gray = probabilities(told(tmp_path)).split(3)
    for found in (in_color, in_gray):
        torch.testing.assert_close(found, found[:1].expand(3, 7))
    assert not torch.equal(in_color[0], in_gray[0])


def test_a_network_of_gray_faces_sees_gray(
    run: Path, faces: Faces, tmp_path: Path, told: Any
) -> None:
    got = probabilities(told(faces[2], run=copied(run, tmp_path / "gray", "last.pt", gray=True)))
    gray = as_tensor(Image.open(faces[2]).convert("L"))
    _, output = compute_outputs(
        load_trained(run).model, augment.crop_for_evaluation(gray[None], 32)
    )
    torch.testing.assert_close(got, output.logits.softmax(1))  # type: ignore[union-attr]
    assert not torch.allclose(got, probabilities(told(faces[2])), atol=1e-5)


def test_best_is_another_checkpoint(run: Path, faces: Faces, tmp_path: Path, told: Any) -> None:
    model = checkpoint.read_checkpoint(run / "best.pt")["model"]
    undecided = {name: torch.zeros_like(model[name]) for name in model if "1.classifier" in name}
    folder = copied(run, tmp_path / "two", "best.pt", model=model | undecided)
    shutil.copy(run / "last.pt", folder)
    best = probabilities(told(faces[0], "--best", run=folder))
    torch.testing.assert_close(best, torch.full((1, 7), 1 / 7))
    assert not torch.allclose(probabilities(told(faces[0], run=folder)), best, atol=1e-5)


def test_the_table_has_a_column_for_each_class_and_latent(
    run: Path, faces: Faces, told: Any, capsys: Capture
) -> None:
    (said,) = told(faces[0])
    assert predict.main([*CPU, str(faces[0]), "--run", str(run)]) == 0
    _, head, row = capsys.readouterr().out.splitlines()
    short = ["Surpr", "Fear", "Disgu", "Happi", "Sadne", "Anger", "Neutr"]
    assert head.split() == ["image", "label", *short, *map(str, range(1, 10))]
    cells = row.split()
    assert cells[:2] == [str(faces[0]), said["label"]]
    shares = [100 * share for share in said["probabilities"].values()]
    assert [float(cell) for cell in cells[2:9]] == pytest.approx(shares, abs=0.051)
    assert [float(cell) for cell in cells[9:]] == pytest.approx(said["intra_weights"], rel=5e-3)


def test_the_baseline_has_no_intra_weights(
    tmp_path: Path, faces: Faces, told: Any, capsys: Capture
) -> None:
    folder = tmp_path / "linear"
    fer_rafdb.main([*SMALL, "--head", "linear", "--out", str(folder)])
    assert told(faces[0], run=folder)[0]["intra_weights"] is None
    arguments = [str(faces[0]), "--run", str(folder), "--annotate", str(tmp_path / "a")]
    assert predict.main([*CPU, *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "Intra-W" not in lines[0]
    assert lines[1].split()[-1] == "Neutr"
    assert len(lines[2].split()) == 2 + 7
    with Image.open(tmp_path / "a" / "test_00000_predicted.png") as picture:
        assert picture.width < 1100  # two panels, where FDRL has three


def test_annotates_without_overwriting(faces: Faces, tmp_path: Path, told: Any) -> None:
    for _ in range(2):
        told(faces[0], "--annotate", tmp_path)
    made = sorted(each.name for each in tmp_path.iterdir())
    assert made == ["test_00000_predicted.png", "test_00000_predicted_2.png"]
    with Image.open(tmp_path / made[0]) as picture:
        assert picture.size == (1530, 480)
        assert len(picture.convert("RGB").getcolors(2**20) or ()) > 100


def test_cuts_the_face_out_of_a_photograph(faces: Faces, tmp_path: Path, told: Any) -> None:
    photograph = Image.new("RGB", (300, 200), "gray")
    photograph.paste(Image.open(faces[0]), (150, 60))
    photograph.save(tmp_path / "photograph.png")
    marked = tmp_path / "eyes.csv"
    marked.write_text("photograph,176.0,90.0,196.0,92.0\n")
    (said,) = told(tmp_path / "photograph.png", "--landmarks", marked)
    assert said["eyes"] == [[176, 90], [196, 92]]
    assert said["note"] is None
    left, right = torch.tensor(said["eyes"])
    crop = align_by_eyes(as_tensor(photograph), left, right, 256)
    as_picture(crop).save(tmp_path / "crop.png")
    want = probabilities(told(tmp_path / "crop.png"))
    torch.testing.assert_close(probabilities([said]), want)
    (whole,) = told(tmp_path / "photograph.png")
    assert whole["note"].startswith("squeezed from 300 x 200 to a square")
    (unknown,) = told(tmp_path / "crop.png", "--landmarks", marked, status=1)
    assert unknown["error"] == f"{marked} does not name it"


def test_rejects_what_no_prediction_can_be_made_with(
    run: Path, tmp_path: Path, capsys: Capture
) -> None:
    damaged = copied(run, tmp_path / "damaged", "best.pt")
    (damaged / "last.pt").write_bytes(b"half a checkpoint")
    for said, picture, folder, *more in (
        ("holds no model to predict with", "a.png", tmp_path),
        ("holds no pictures", tmp_path, run),
        ("eye_height must be in", "a.png", run, "--eye-height", "2"),
        ("damaged holds no model to predict with", "a.png", damaged),
        ("--batch-size must be at least 1, got 0", "a.png", run, "--batch-size", "0"),
        ("abacus cannot be used", "a.png", run, "--device", "abacus"),
    ):
        with pytest.raises(SystemExit) as ended:
            predict.main([*CPU, str(picture), "--run", str(folder), *map(str, more)])
        assert said in f"{ended.value}{capsys.readouterr().err}"
