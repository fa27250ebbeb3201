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
from fer.model.build import load_trained, outputs
from fer.options import load_options
from fer.report.pictures import as_picture, as_tensor, pictures_under
from fer.training import augment

CPU = ["--device", "cpu"]
SMALL = [*CPU, "--faces", "64", "--image-size", "32", "--batch-size", "32", "--epochs", "1"]
KEYS = ["image", "label", "probability", "probabilities", "intra_weights", "eyes", "note", "error"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "fdrl"
    fer_rafdb.main([*SMALL, "--out", str(folder)])
    return folder


@pytest.fixture(scope="module")
def faces(run: Path) -> Path:
    """The run's own test faces, as files."""
    folder = run.parent / "faces"
    folder.mkdir()
    split = read_database(load_options(run)).splits["test"]
    for name, image in zip(split.names, split.images, strict=True):
        as_picture(image).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Any:
    """What predict.py says with --json, and its status."""

    def tell(*arguments: object) -> tuple[list[dict[str, Any]], int]:
        capsys.readouterr()
        status = predict.main([*CPU, *map(str, arguments), "--json"])
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()], status

    return tell


def copied(run: Path, folder: Path, which: str, changes: dict[str, Any]) -> Path:
    """Make a run's folder with a checkpoint that is changed in places."""
    folder.mkdir()
    shutil.copy(run / "config.json", folder)
    state = checkpoint.read_checkpoint(run / "best.pt")
    checkpoint.write_checkpoint(folder / which, state | changes)
    return folder


def probabilities(said: list[dict[str, Any]]) -> torch.Tensor:
    return torch.tensor([list(each["probabilities"].values()) for each in said])


def test_says_what_the_run_said_of_its_own_test_faces(run: Path, faces: Path, told: Any) -> None:
    said, status = told(faces, "--run", run)
    kept = evaluation.read_evaluation(run / "evaluation.pt").evaluation
    assert status == 0
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


def test_depends_on_neither_batch_nor_order(run: Path, faces: Path, told: Any) -> None:
    paths = pictures_under(faces)[:7]
    want = probabilities(told(*paths, "--run", run)[0])
    got = probabilities(told(*paths[::-1], "--run", run, "--batch-size", "3")[0])
    torch.testing.assert_close(got.flip(0), want)
    alone = probabilities(told(paths[4], "--run", run)[0])
    torch.testing.assert_close(alone[0], want[4])


def test_names_what_it_cannot_read_and_predicts_the_rest(
    run: Path, faces: Path, tmp_path: Path, told: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    good = pictures_under(faces)[0]
    content = bytearray(good.read_bytes())
    content[-13] ^= 1  # the last byte of the pixels' checksum, before the chunk that ends a PNG
    (tmp_path / "broken.png").write_bytes(content)
    Image.new("I;16", (9, 9)).save(tmp_path / "deep.png")
    paths = [tmp_path / "broken.png", good, tmp_path / "deep.png", tmp_path / "nowhere.png"]
    said, status = told(*paths, "--run", run)
    assert status == 1
    assert [each["label"] is None for each in said] == [True, False, True, True]
    assert all(list(each) == KEYS for each in said)
    assert "cannot be decoded" in said[0]["error"]
    assert said[1]["error"] is None
    assert "expected 8 bits a channel, got mode I;16" in said[2]["error"]
    assert said[3]["error"] == "there is no such file"

    assert predict.main([*CPU, *map(str, paths), "--run", str(run)]) == 1
    printed = capsys.readouterr()
    assert [line.split()[0] for line in printed.out.splitlines()[2:]] == [str(good)]
    assert f"error: {tmp_path / 'broken.png'}: cannot be decoded" in printed.err
    assert "3 of 4 pictures not predicted" in printed.err


def test_a_picture_is_the_same_in_every_mode_and_direction(
    run: Path, faces: Path, tmp_path: Path, told: Any
) -> None:
    picture = Image.open(pictures_under(faces)[3])
    gray = picture.convert("L")
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    picture.save(tmp_path / "rgb.png")
    picture.convert("RGBA").save(tmp_path / "rgba.png")
    picture.rotate(180).save(tmp_path / "turned.png", exif=exif)
    gray.save(tmp_path / "gray.png")
    gray.convert("P").save(tmp_path / "palette.png")
    gray.convert("RGB").save(tmp_path / "three_channels.png")
    said = {Path(each["image"]).stem: each for each in told(tmp_path, "--run", run)[0]}
    for same in (("rgb", "rgba", "turned"), ("gray", "palette", "three_channels")):
        for other in same[1:]:
            torch.testing.assert_close(probabilities([said[other]]), probabilities([said[same[0]]]))
    assert said["rgb"]["probabilities"] != said["gray"]["probabilities"]


def test_a_network_of_gray_faces_sees_gray(
    run: Path, faces: Path, tmp_path: Path, told: Any
) -> None:
    folder = copied(run, tmp_path / "gray", "last.pt", {"gray": True})
    path = pictures_under(faces)[2]
    got = probabilities(told(path, "--run", folder)[0])
    gray = as_tensor(Image.open(path).convert("L"))
    _, output = outputs(load_trained(run).model, augment.for_evaluation(gray[None], 32))
    torch.testing.assert_close(got, output.logits.softmax(1))  # type: ignore[union-attr]
    assert not torch.allclose(got, probabilities(told(path, "--run", run)[0]), atol=1e-5)


def test_best_is_another_checkpoint(run: Path, faces: Path, tmp_path: Path, told: Any) -> None:
    model = checkpoint.read_checkpoint(run / "best.pt")["model"]
    undecided = {name: torch.zeros_like(model[name]) for name in model if "1.classifier" in name}
    folder = copied(run, tmp_path / "two", "best.pt", {"model": model | undecided})
    shutil.copy(run / "last.pt", folder)
    path = pictures_under(faces)[0]
    best = probabilities(told(path, "--run", folder, "--best")[0])
    torch.testing.assert_close(best, torch.full((1, 7), 1 / 7))
    assert not torch.allclose(probabilities(told(path, "--run", folder)[0]), best, atol=1e-5)


def test_the_table_has_a_column_for_each_class_and_latent(
    run: Path, faces: Path, told: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pictures_under(faces)[0]
    ((said,), _) = told(path, "--run", run)
    assert predict.main([*CPU, str(path), "--run", str(run)]) == 0
    _, head, row = capsys.readouterr().out.splitlines()
    short = ["Surpr", "Fear", "Disgu", "Happi", "Sadne", "Anger", "Neutr"]
    assert head.split() == ["image", "label", *short, *map(str, range(1, 10))]
    cells = row.split()
    assert cells[:2] == [str(path), said["label"]]
    shares = [100 * share for share in said["probabilities"].values()]
    assert [float(cell) for cell in cells[2:9]] == pytest.approx(shares, abs=0.051)
    assert [float(cell) for cell in cells[9:]] == pytest.approx(said["intra_weights"], rel=5e-3)


def test_the_baseline_has_no_intra_weights(
    tmp_path: Path, faces: Path, told: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "linear"
    fer_rafdb.main([*SMALL, "--head", "linear", "--out", str(folder)])
    path = pictures_under(faces)[0]
    ((said,), _) = told(path, "--run", folder)
    assert said["intra_weights"] is None
    assert (
        predict.main([*CPU, str(path), "--run", str(folder), "--annotate", str(tmp_path / "a")])
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert "Intra-W" not in lines[0]
    assert lines[1].split()[-1] == "Neutr"
    assert len(lines[2].split()) == 2 + 7
    with Image.open(tmp_path / "a" / "test_00000_predicted.png") as picture:
        assert picture.width < 1100  # two panels, where FDRL has three


def test_annotates_without_overwriting(run: Path, faces: Path, tmp_path: Path, told: Any) -> None:
    path = pictures_under(faces)[0]
    for _ in range(2):
        assert told(path, "--run", run, "--annotate", tmp_path)[1] == 0
    made = sorted(each.name for each in tmp_path.iterdir())
    assert made == ["test_00000_predicted.png", "test_00000_predicted_2.png"]
    with Image.open(tmp_path / made[0]) as picture:
        assert picture.size == (1530, 480)
        assert len(picture.convert("RGB").getcolors(2**20) or ()) > 100


def test_cuts_the_face_out_of_a_photograph(
    run: Path, faces: Path, tmp_path: Path, told: Any
) -> None:
    face = Image.open(pictures_under(faces)[0])
    photograph = Image.new("RGB", (300, 200), "gray")
    photograph.paste(face, (150, 60))
    photograph.save(tmp_path / "photograph.png")
    marked = tmp_path / "eyes.csv"
    marked.write_text("photograph,176.0,90.0,196.0,92.0\n")
    ((said,), status) = told(tmp_path / "photograph.png", "--run", run, "--landmarks", marked)
    assert status == 0
    assert said["eyes"] == [[176, 90], [196, 92]]
    assert said["note"] is None
    left, right = torch.tensor(said["eyes"])
    crop = align_by_eyes(as_tensor(photograph), left, right, 256)
    as_picture(crop).save(tmp_path / "crop.png")
    ((want,), _) = told(tmp_path / "crop.png", "--run", run)
    torch.testing.assert_close(probabilities([said]), probabilities([want]))

    ((whole,), _) = told(tmp_path / "photograph.png", "--run", run)
    assert whole["note"].startswith("squeezed from 300 x 200 to a square")
    ((unknown,), status) = told(tmp_path / "crop.png", "--run", run, "--landmarks", marked)
    assert status == 1
    assert unknown["error"] == f"{marked} does not name it"


def test_rejects_what_no_prediction_can_be_made_with(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="holds no model to predict with"):
        predict.main([*CPU, "a.png", "--run", str(tmp_path)])
    with pytest.raises(SystemExit, match="holds no pictures"):
        predict.main([*CPU, str(tmp_path), "--run", str(run)])
    with pytest.raises(SystemExit, match="eye_height must be in"):
        predict.main([*CPU, "a.png", "--run", str(run), "--eye-height", "2"])
    damaged = copied(run, tmp_path / "damaged", "best.pt", {})
    (damaged / "last.pt").write_bytes(b"half a checkpoint")
    with pytest.raises(SystemExit, match="damaged holds no model to predict with"):
        predict.main([*CPU, "a.png", "--run", str(damaged)])
    with pytest.raises(SystemExit):
        predict.main([*CPU, "a.png", "--run", str(run), "--batch-size", "0"])
    assert "--batch-size must be at least 1, got 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        predict.main(["a.png", "--run", str(run), "--device", "abacus"])
    assert "abacus cannot be used" in capsys.readouterr().err
