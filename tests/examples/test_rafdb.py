"""The reader of RAF-DB, on small trees laid out as the authors distribute the database."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from fer.data import rafdb
from fer.data.rafdb import load_rafdb

ROWS = (
    ("test_0002.jpg", 7),
    ("train_00002.jpg", 5),
    ("train_00001.jpg", 1),
    ("test_0001.jpg", 4),
    ("train_00003.jpg", 2),
)


def write_tree(base: Path, side: int = 10) -> Path:
    """Write a database of the five `ROWS` and return its list file."""
    images = base / "Image" / "aligned"
    images.mkdir(parents=True)
    for number, (name, _) in enumerate(ROWS):
        generator = torch.Generator().manual_seed(number)
        image = torch.randint(0, 256, (3, side, side), generator=generator, dtype=torch.uint8)
        to_pil_image(image).save(images / f"{Path(name).stem}_aligned.jpg")
    labels = base / "EmoLabel" / "list_patition_label.txt"
    labels.parent.mkdir()
    labels.write_text("\n".join(f"{name} {label}" for name, label in ROWS))
    return labels


@pytest.mark.parametrize(
    ("folder", "root"),
    [("basic", "."), ("raf-basic", "."), ("basic", "basic"), ("any-name", "any-name")],
)
def test_reads_the_database_from_either_folder(tmp_path: Path, folder: str, root: str) -> None:
    write_tree(tmp_path / folder)

    database = load_rafdb(tmp_path / root, check_counts=False)

    assert database.name == "rafdb"
    assert list(database.splits) == ["train", "test"]
    assert database.splits["train"].images.shape == (3, 3, 10, 10)


def test_splits_keep_the_order_of_the_list_with_labels_from_zero(tmp_path: Path) -> None:
    write_tree(tmp_path / "basic")

    database = load_rafdb(tmp_path, check_counts=False)
    train, test = database.splits["train"], database.splits["test"]

    assert train.names == ("train_00002.jpg", "train_00001.jpg", "train_00003.jpg")
    assert test.names == ("test_0002.jpg", "test_0001.jpg")
    assert [database.classes[i] for i in train.labels] == ["sadness", "surprise", "fear"]
    assert [database.classes[i] for i in test.labels] == ["neutral", "happiness"]
    assert train.units is None
    folder = tmp_path / "basic" / "Image" / "aligned"
    for name, image in zip(test.names, test.images, strict=True):
        with Image.open(folder / f"{name[:-4]}_aligned.jpg") as expected:
            assert torch.equal(image, pil_to_tensor(expected))


def test_the_classes_are_in_the_order_of_the_label_file() -> None:
    expected = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
    assert expected == rafdb.CLASSES


@pytest.mark.parametrize(
    "ending", [b"", b"\n", b"\r\n\r\n"], ids=["no-newline", "newline", "blank-lines"]
)
def test_line_ends_do_not_matter(tmp_path: Path, ending: bytes) -> None:
    labels = write_tree(tmp_path)
    labels.write_bytes(labels.read_bytes().replace(b"\n", b"\r\n") + ending)

    assert load_rafdb(tmp_path, check_counts=False).splits["train"].labels.tolist() == [4, 0, 1]


def test_the_published_counts_are_required(tmp_path: Path) -> None:
    write_tree(tmp_path)

    match = r"train: expected 12,271, found 3; test: expected 3,068, found 2.*check_counts=False"
    with pytest.raises(ValueError, match=match):
        load_rafdb(tmp_path)


def test_the_published_counts_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tree(tmp_path)
    monkeypatch.setattr(rafdb, "COUNTS", {"train": 3, "test": 2})

    assert len(load_rafdb(tmp_path).splits["train"]) == 3


def test_a_root_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"root: there is no folder .*nowhere"):
        load_rafdb(tmp_path / "nowhere")


def test_a_root_without_the_database_says_what_was_looked_for(tmp_path: Path) -> None:
    write_tree(tmp_path / "rafdb")

    match = (
        r"no RAF-DB in .*; looked for the folders .*EmoLabel, .*[/\\]basic[/\\]EmoLabel, "
        r".*raf-basic[/\\]EmoLabel \(with list_patition_label\.txt in it, and Image/aligned"
    )
    with pytest.raises(FileNotFoundError, match=match):
        load_rafdb(tmp_path)


def test_two_databases_under_one_root_are_not_chosen_between(tmp_path: Path) -> None:
    write_tree(tmp_path / "basic")
    write_tree(tmp_path / "raf-basic")

    with pytest.raises(ValueError, match=r"holds more than one RAF-DB: .*basic, .*raf-basic"):
        load_rafdb(tmp_path, check_counts=False)


def test_a_missing_or_empty_list_is_named(tmp_path: Path) -> None:
    labels = write_tree(tmp_path)
    labels.write_text("\n")
    with pytest.raises(ValueError, match=r"list_patition_label\.txt is empty"):
        load_rafdb(tmp_path)
    labels.unlink()
    with pytest.raises(FileNotFoundError, match=r"list_patition_label\.txt does not exist"):
        load_rafdb(tmp_path)


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("train_00009.jpg", "a line like 'train_00001.jpg 5', got 'train_00009.jpg'"),
        ("train_00009.jpg five", "a line like .* got 'train_00009.jpg five'"),
        ("train_00009.jpg 5 5", "a line like .* got 'train_00009.jpg 5 5'; a third column, .*"),
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
def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path, line: str, match: str) -> None:
    labels = write_tree(tmp_path)
    labels.write_text(f"{labels.read_text()}\n{line}\ntest_0009.jpg 1\n")

    with pytest.raises(ValueError, match=rf"list_patition_label\.txt, line 6: .*{match}$"):
        load_rafdb(tmp_path)


def test_a_split_without_images_is_an_error(tmp_path: Path) -> None:
    labels = write_tree(tmp_path)
    labels.write_text("train_00001.jpg 1\n")

    with pytest.raises(ValueError, match=r"list_patition_label\.txt lists no test images"):
        load_rafdb(tmp_path, check_counts=False)


def test_missing_images_of_both_splits_are_found_before_any_is_decoded(tmp_path: Path) -> None:
    write_tree(tmp_path)
    folder = tmp_path / "Image" / "aligned"
    (folder / "train_00002_aligned.jpg").write_bytes(b"")
    (folder / "train_00001_aligned.jpg").unlink()
    (folder / "test_0001_aligned.jpg").unlink()

    match = r"2 of 5 image files are missing: .*train_00001_aligned\.jpg, .*test_0001_aligned\.jpg$"
    with pytest.raises(FileNotFoundError, match=match):
        load_rafdb(tmp_path, check_counts=False)


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    write_tree(tmp_path)
    (tmp_path / "Image" / "aligned" / "test_0002_aligned.jpg").write_bytes(b"no jpeg")

    with pytest.raises(ValueError, match=r"test_0002_aligned\.jpg cannot be decoded"):
        load_rafdb(tmp_path, check_counts=False)


def test_progress_names_the_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tree(tmp_path)

    load_rafdb(tmp_path, check_counts=False, progress=True)

    bars = capsys.readouterr().err
    assert "RAF-DB train: 100%" in bars
    assert "RAF-DB test: 100%" in bars


def test_rejects_a_list_with_a_coarse_label_behind_the_label(tmp_path: Path) -> None:
    labels = write_tree(tmp_path)
    labels.write_text("train_00001.jpg 5 2\n")
    with pytest.raises(ValueError, match=r"line 1: .*; a third column, as of a coarse label"):
        load_rafdb(tmp_path, check_counts=False)


@pytest.mark.parametrize("ending", [".JPG", ".jpeg", ".JPEG", ".png", ".PNG"])
def test_images_of_other_endings_are_found(tmp_path: Path, ending: str) -> None:
    write_tree(tmp_path / "basic")
    expected = load_rafdb(tmp_path, check_counts=False).splits["train"].images
    for path in (tmp_path / "basic" / "Image" / "aligned").iterdir():
        path.rename(path.with_suffix(ending))
    found = load_rafdb(tmp_path, check_counts=False).splits["train"].images
    assert torch.equal(found, expected)


def test_of_two_endings_the_published_one_is_read(tmp_path: Path) -> None:
    write_tree(tmp_path / "basic")
    expected = load_rafdb(tmp_path, check_counts=False).splits["train"].images
    for path in list((tmp_path / "basic" / "Image" / "aligned").iterdir()):
        path.with_suffix(".png").write_bytes(b"no image")
    found = load_rafdb(tmp_path, check_counts=False).splits["train"].images
    assert torch.equal(found, expected)
