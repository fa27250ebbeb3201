"""The reader of RAF-DB, on small trees laid out as the authors distribute the database."""

from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from fer.data import rafdb
from fer.data.rafdb import load_rafdb
from image_trees import class_names
from report_runs import CLASSES

ROWS = {"test_0002": 7, "train_00002": 5, "train_00001": 1, "test_0001": 4, "train_00003": 2}
IMAGES = "Image/aligned"
load_uncounted = partial(load_rafdb, check_counts=False)


def write_tree(base: Path) -> Path:
    """Write a database of the five `ROWS` and return its list file."""
    (base / IMAGES).mkdir(parents=True)
    for number, name in enumerate(ROWS):
        generator = torch.Generator().manual_seed(number)
        image = torch.randint(0, 256, (3, 10, 10), generator=generator, dtype=torch.uint8)
        to_pil_image(image).save(base / IMAGES / f"{name}_aligned.jpg")
    labels = base / "EmoLabel" / "list_patition_label.txt"
    labels.parent.mkdir()
    labels.write_text("\n".join(f"{name}.jpg {label}" for name, label in ROWS.items()))
    return labels


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Lay the database out in the temporary folder itself, and return its list file."""
    return write_tree(tmp_path)


@pytest.mark.parametrize(
    ("folder", "root"),
    [("basic", "."), ("raf-basic", "."), ("basic", "basic"), ("any-name", "any-name")],
)
def test_reads_both_splits_in_the_order_of_the_list(
    tmp_path: Path, folder: str, root: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tree(tmp_path / folder)
    database = load_uncounted(tmp_path / root, progress=True)
    assert database.name == "rafdb"
    assert database.classes == tuple(map(str.lower, CLASSES))
    assert list(database.splits) == ["train", "test"]
    train, test = database.splits.values()
    assert train.images.shape == (3, 3, 10, 10)
    assert train.names == ("train_00002.jpg", "train_00001.jpg", "train_00003.jpg")
    assert test.names == ("test_0002.jpg", "test_0001.jpg")
    assert class_names(database, "train") == ["sadness", "surprise", "fear"]
    assert class_names(database, "test") == ["neutral", "happiness"]
    assert train.units is None
    for name, image in zip(test.names, test.images, strict=True):
        with Image.open(tmp_path / folder / IMAGES / f"{name[:-4]}_aligned.jpg") as expected:
            assert torch.equal(image, pil_to_tensor(expected))
    bars = capsys.readouterr().err
    assert "RAF-DB train: 100%" in bars
    assert "RAF-DB test: 100%" in bars


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n\r\n"], ids=["none", "newline", "blank"])
def test_line_ends_do_not_matter(tmp_path: Path, labels: Path, ending: bytes) -> None:
    labels.write_bytes(labels.read_bytes().replace(b"\n", b"\r\n") + ending)
    assert load_uncounted(tmp_path).splits["train"].labels.tolist() == [4, 0, 1]


@pytest.mark.usefixtures("labels")
def test_the_published_counts_are_required(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    match = r"train: expected 12,271, found 3; test: expected 3,068, found 2.*check_counts=False"
    with pytest.raises(ValueError, match=match):
        load_rafdb(tmp_path)
    monkeypatch.setattr(rafdb, "COUNTS", {"train": 3, "test": 2})
    assert len(load_rafdb(tmp_path).splits["train"]) == 3


def test_a_root_must_hold_one_database(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"root: there is no folder .*nowhere"):
        load_rafdb(tmp_path / "nowhere")
    write_tree(tmp_path / "elsewhere" / "rafdb")
    match = (
        r"no RAF-DB in .*; looked for the folders .*EmoLabel, .*[/\\]basic[/\\]EmoLabel, "
        r".*raf-basic[/\\]EmoLabel \(with list_patition_label\.txt in it, and Image/aligned"
    )
    with pytest.raises(FileNotFoundError, match=match):
        load_rafdb(tmp_path / "elsewhere")
    write_tree(tmp_path / "basic")
    write_tree(tmp_path / "raf-basic")
    with pytest.raises(ValueError, match=r"holds more than one RAF-DB: .*basic, .*raf-basic"):
        load_uncounted(tmp_path)


def test_a_list_must_be_there_and_name_images_of_both_splits(tmp_path: Path, labels: Path) -> None:
    labels.write_text("\n")
    with pytest.raises(ValueError, match=r"list_patition_label\.txt is empty"):
        load_rafdb(tmp_path)
    labels.write_text("train_00001.jpg 1\n")
    with pytest.raises(ValueError, match=r"list_patition_label\.txt lists no test images"):
        load_uncounted(tmp_path)
    labels.unlink()
    with pytest.raises(FileNotFoundError, match=r"list_patition_label\.txt does not exist"):
        load_rafdb(tmp_path)


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("train_00009.jpg", "a line like 'train_00001.jpg 5', got 'train_00009.jpg'"),
        ("train_00009.jpg five", "a line like .* got 'train_00009.jpg five'"),
        ("train_00009.jpg 5 5", "a line like .* 5 5'; a third column, as of a coarse label, .*"),
        ("train_00009.png 5", "a line like .* got 'train_00009.png 5'"),
        ("", "a line like .* got ''"),
        ("train_00009.jpg 0", "a label from 1 to 7, got 0"),
        ("train_00009.jpg 8", "a label from 1 to 7, got 8"),
        ("train_00009.jpg -1", "a label from 1 to 7, got -1"),
        ("valid_00009.jpg 5", "a name like .* got 'valid_00009.jpg'"),
        ("Train_00009.jpg 5", "a name like .* got 'Train_00009.jpg'"),
        ("train_../9.jpg 5", "a name like .* got 'train_../9.jpg'"),
        ("train_00001.jpg 2", "train_00001.jpg is listed a second time"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(
    tmp_path: Path, labels: Path, line: str, match: str
) -> None:
    labels.write_text(f"{labels.read_text()}\n{line}\ntest_0009.jpg 1\n")
    with pytest.raises(ValueError, match=rf"list_patition_label\.txt, line 6: .*{match}$"):
        load_rafdb(tmp_path)


@pytest.mark.usefixtures("labels")
def test_bad_images_are_named_and_missing_ones_before_any_is_decoded(tmp_path: Path) -> None:
    (tmp_path / IMAGES / "train_00002_aligned.jpg").write_bytes(b"no jpeg")
    with pytest.raises(ValueError, match=r"train_00002_aligned\.jpg cannot be decoded"):
        load_uncounted(tmp_path)
    (tmp_path / IMAGES / "train_00001_aligned.jpg").unlink()
    (tmp_path / IMAGES / "test_0001_aligned.jpg").unlink()
    match = r"2 of 5 image files are missing: .*train_00001_aligned\.jpg, .*test_0001_aligned\.jpg$"
    with pytest.raises(FileNotFoundError, match=match):
        load_uncounted(tmp_path)


@pytest.mark.usefixtures("labels")
@pytest.mark.parametrize("ending", [".JPG", ".jpeg", ".JPEG", ".png", ".PNG"])
def test_other_endings_are_found_and_the_published_one_first(tmp_path: Path, ending: str) -> None:
    expected = load_uncounted(tmp_path).splits["train"].images
    for path in list((tmp_path / IMAGES).iterdir()):
        path.rename(path.with_suffix(ending))
    assert torch.equal(load_uncounted(tmp_path).splits["train"].images, expected)
    for path in list((tmp_path / IMAGES).iterdir()):
        path.rename(path.with_suffix(".jpg"))
        path.with_suffix(".png").write_bytes(b"no image")
    assert torch.equal(load_uncounted(tmp_path).splits["train"].images, expected)
