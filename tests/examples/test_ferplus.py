"""The reader of FER+, on small trees in its own layout and on the official label files."""

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from fer.data import ferplus
from fer.data.ferplus import COUNTS, FOLDERS, SHARED_COUNTS, load_ferplus
from fer.data.votes import COLUMNS

OFFICIAL = Path(__file__).resolve().parents[2] / "../shared/data/ferplus"
HEADER = ",".join(("Usage", "Image name", *COLUMNS))
USAGE = {split: usage for usage, split in ferplus.USAGES.items()}
# Each split has one face to leave out: a tie, a majority for unknown, a tie of two votes each.
SPLIT_VOTES = {
    "train": ((0, 0, 0, 0, 8, 1, 1, 0, 0, 0), (5, 5, 0, 0, 0, 0, 0, 0, 0, 0), (1, 9) + (0,) * 8),
    "valid": ((0,) * 8 + (9, 1), (0, 0, 0, 0, 0, 0, 0, 7, 3, 0)),
    "test": ((0, 0, 2, 1, 1, 1, 1, 1, 1, 2), (10,) + (0,) * 9, (0, 0, 0, 6, 0, 4, 0, 0, 0, 0)),
}
EXPECTED = {
    "train": (("fer0000000.png", "fer0000002.png"), ["anger", "happiness"]),
    "valid": (("fer0000101.png",), ["contempt"]),
    "test": (("fer0000201.png", "fer0000202.png"), ["neutral", "sadness"]),
}


def write_tree(root: Path) -> None:
    """Write the images of `SPLIT_VOTES` and both label files, with equal votes in the two."""
    joint = [HEADER, "Training,," + ",".join("0" * 9) + ",10"]
    for start, (split, rows) in zip((0, 100, 200), SPLIT_VOTES.items(), strict=True):
        folder = root / FOLDERS[split]
        folder.mkdir(parents=True)
        lines = []
        for number, votes in enumerate(rows, start=start):
            name, counts = f"fer{number:07}.png", ",".join(map(str, votes))
            Image.new("L", (48, 48), number).save(folder / name)
            lines.append(f'{name},"(0, 0, 48, 48)",{counts}')
            joint.append(f"{USAGE[split]},{name},{counts}")
        (folder / "label.csv").write_text("\n".join(lines) + "\n")
    (root / "fer2013new.csv").write_text("\n".join(joint) + "\n")


def append(path: Path, line: str) -> None:
    path.write_text(f"{path.read_text()}{line}\n")


@pytest.mark.parametrize("labels", COUNTS)
def test_reads_the_faces_with_a_majority(tmp_path: Path, labels: str) -> None:
    write_tree(tmp_path)

    database = load_ferplus(tmp_path, labels=labels, check_counts=False)

    assert database.name == "ferplus"
    assert list(database.splits) == ["train", "valid", "test"]
    for split, (names, expressions) in EXPECTED.items():
        faces = database.splits[split]
        assert faces.names == names
        assert [database.classes[i] for i in faces.labels] == expressions
        values = [int(name[3:10]) for name in names]
        expected = torch.tensor(values, dtype=torch.uint8)[:, None, None, None]
        assert torch.equal(faces.images, expected.expand(-1, 1, 48, 48))


def test_only_the_faces_that_are_kept_are_needed(tmp_path: Path) -> None:
    write_tree(tmp_path)
    (tmp_path / FOLDERS["train"] / "fer0000001.png").write_bytes(b"")
    (tmp_path / FOLDERS["valid"] / "fer0000100.png").unlink()

    assert len(load_ferplus(tmp_path, check_counts=False).splits["train"]) == 2


def test_the_chosen_label_file_is_the_only_one_needed(tmp_path: Path) -> None:
    write_tree(tmp_path)
    joint = (tmp_path / "fer2013new.csv").read_text()
    (tmp_path / "fer2013new.csv").unlink()
    load_ferplus(tmp_path, check_counts=False)

    (tmp_path / "fer2013new.csv").write_text(joint)
    for folder in FOLDERS.values():
        (tmp_path / folder / "label.csv").unlink()
    load_ferplus(tmp_path, labels="fer2013new.csv", check_counts=False)


def test_windows_line_ends_do_not_matter(tmp_path: Path) -> None:
    write_tree(tmp_path)
    path = tmp_path / "fer2013new.csv"
    path.write_bytes(path.read_bytes().strip().replace(b"\n", b"\r\n"))

    database = load_ferplus(tmp_path, labels="fer2013new.csv", check_counts=False)
    assert database.splits["test"].names == EXPECTED["test"][0]


def test_faces_are_kept_for_their_shares_in_training_alone(tmp_path: Path) -> None:
    write_tree(tmp_path)
    database = load_ferplus(tmp_path, shares=True, check_counts=False)
    # The tie of five votes each has no majority, and two shares.
    train = database.splits["train"]
    assert train.names == ("fer0000000.png", "fer0000001.png", "fer0000002.png")
    assert [database.classes[i] for i in train.labels] == ["anger", "neutral", "happiness"]
    assert train.shares is not None
    assert train.shares.tolist() == [
        [0, 0, 0, 0, 1, 0, 0, 0],
        [0.5, 0.5, 0, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0, 0, 0],
    ]
    for split in ("valid", "test"):
        assert database.splits[split].names == EXPECTED[split][0]
        assert database.splits[split].shares is None


def test_the_label_file_is_one_of_two(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"labels must be one of label.csv, .* got 'Label.csv'"):
        load_ferplus(tmp_path, labels="Label.csv")


@pytest.mark.parametrize("labels", COUNTS)
def test_the_published_counts_are_required(
    tmp_path: Path, labels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tree(tmp_path)
    train = {"label.csv": "25,045", "fer2013new.csv": "25,060"}[labels]
    match = rf"\({labels}\) .*train: expected {train}, found 2; valid: .*, found 1; test: "
    with pytest.raises(ValueError, match=match):
        load_ferplus(tmp_path, labels=labels)
    shared = {"label.csv": "27,947", "fer2013new.csv": "27,956"}[labels]
    with pytest.raises(ValueError, match=rf"train: expected {shared}, found 3"):
        load_ferplus(tmp_path, labels=labels, shares=True)

    monkeypatch.setattr(ferplus, "COUNTS", {labels: {"train": 2, "valid": 1, "test": 2}})
    assert len(load_ferplus(tmp_path, labels=labels).splits["test"]) == 2


def test_a_root_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"root: there is no folder .*nowhere"):
        load_ferplus(tmp_path / "nowhere")


def test_a_root_without_all_splits_says_what_is_missing(tmp_path: Path) -> None:
    write_tree(tmp_path)
    shutil.move(tmp_path / "FER2013Valid", tmp_path / "fer2013valid-old")

    with pytest.raises(FileNotFoundError, match=r"no FER\+ in .*; looked for .* FER2013Valid$"):
        load_ferplus(tmp_path)


def test_a_folder_of_sheets_says_to_unpack_first(tmp_path: Path) -> None:
    (tmp_path / "train_0.png").touch()
    (tmp_path / "unpack.py").touch()

    with pytest.raises(FileNotFoundError, match=r"run `python unpack\.py OUT` in it first"):
        load_ferplus(tmp_path)


@pytest.mark.parametrize("labels", COUNTS)
def test_a_missing_or_empty_label_file_is_named(tmp_path: Path, labels: str) -> None:
    write_tree(tmp_path)
    path = tmp_path / ("FER2013Valid/label.csv" if labels == "label.csv" else labels)
    path.write_text("\n")
    with pytest.raises(ValueError, match=rf"label file .*{labels} is empty"):
        load_ferplus(tmp_path, labels=labels)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"label file .*{labels} does not exist"):
        load_ferplus(tmp_path, labels=labels)


ZEROS = ",0" * 10


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ('fer0000109.png,"(0, 0, 48, 48)",10', r"expected 12 columns, got 3: .*fer0000109"),
        ("", r"expected 12 columns, got 0"),
        (f'fer0000109.png,"(4, 0, 48, 48)"{ZEROS}', r"the rectangle .* got '\(4, 0, 48, 48\)'"),
        (f'fer0000109.jpg,"(0, 0, 48, 48)"{ZEROS}', r"a name like .* got 'fer0000109\.jpg'"),
        (f'../fer0000109.png,"(0, 0, 48, 48)"{ZEROS}', r"a name like .* got '\.\./fer"),
        (f',"(0, 0, 48, 48)"{ZEROS}', r"a name like .* got ''"),
        (f'fer0000109.png,"(0, 0, 48, 48)"{ZEROS[:-1]}x', r"10 counts of votes, got .*'x'\]"),
        (f'fer0000109.png,"(0, 0, 48, 48)"{ZEROS[:-1]}-1', r"10 counts of votes, got .*'-1'\]"),
        (f'fer0000101.png,"(0, 0, 48, 48)"{ZEROS}', r"fer0000101\.png is listed a second time"),
        (f'fer0000001.png,"(0, 0, 48, 48)"{ZEROS}', r"fer0000001\.png is listed a second time"),
    ],
)
def test_a_bad_row_of_label_csv_is_named(tmp_path: Path, line: str, match: str) -> None:
    write_tree(tmp_path)
    path = tmp_path / "FER2013Valid" / "label.csv"
    append(path, f"{line}\nfer0000110.png")

    with pytest.raises(ValueError, match=rf"FER2013Valid.label\.csv, line 3: .*{match}"):
        load_ferplus(tmp_path)


@pytest.mark.parametrize(
    ("line", "match"),
    [
        (f"Train,fer0000009.png{ZEROS}", r"a usage of Training, .* got 'Train'"),
        ("Training,fer0000009.png,3", r"expected 12 columns, got 3"),
        (f"Training,fer0000009{ZEROS}", r"a name like .* got 'fer0000009'"),
        (f"Training,fer0000009.png{ZEROS[:-1]}1.5", r"10 counts of votes, got .*'1\.5'\]"),
        (f"Training,fer0000201.png{ZEROS}", r"fer0000201\.png is listed a second time"),
    ],
)
def test_a_bad_row_of_fer2013new_csv_is_named(tmp_path: Path, line: str, match: str) -> None:
    write_tree(tmp_path)
    append(tmp_path / "fer2013new.csv", line)

    with pytest.raises(ValueError, match=rf"fer2013new\.csv, line 11: .*{match}"):
        load_ferplus(tmp_path, labels="fer2013new.csv")


def test_fer2013new_csv_needs_its_own_columns(tmp_path: Path) -> None:
    write_tree(tmp_path)
    path = tmp_path / "fer2013new.csv"
    path.write_text(path.read_text().replace("happiness,surprise", "surprise,happiness"))

    match = r"fer2013new\.csv, line 1: expected the header .*, got .*neutral,surprise,happiness"
    with pytest.raises(ValueError, match=match):
        load_ferplus(tmp_path, labels="fer2013new.csv")


def test_a_face_that_the_official_file_lists_twice_counts_twice(tmp_path: Path) -> None:
    write_tree(tmp_path)
    name = ferplus.TWICE[0]
    image = tmp_path / FOLDERS["train"] / "fer0000000.png"
    shutil.copy(image, image.with_name(name))
    for _ in range(2):
        append(tmp_path / "fer2013new.csv", f"Training,{name},10{ZEROS[2:]}")

    train = load_ferplus(tmp_path, labels="fer2013new.csv", check_counts=False).splits["train"]
    assert train.names[2:] == (name, name)


def test_a_split_without_any_majority_is_an_error(tmp_path: Path) -> None:
    write_tree(tmp_path)
    (tmp_path / "FER2013Test" / "label.csv").write_text(f'fer0000201.png,"(0,0,48,48)"{ZEROS}')

    with pytest.raises(ValueError, match=r"label\.csv in .*: no test image has a majority label"):
        load_ferplus(tmp_path, check_counts=False)


def test_missing_images_are_found_before_any_is_decoded(tmp_path: Path) -> None:
    write_tree(tmp_path)
    (tmp_path / "FER2013Train" / "fer0000000.png").write_bytes(b"")
    (tmp_path / "FER2013Test" / "fer0000202.png").unlink()

    with pytest.raises(FileNotFoundError, match=r"1 of 5 .* missing: .*fer0000202\.png$"):
        load_ferplus(tmp_path, check_counts=False)


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="the official label files are not at hand")
@pytest.mark.parametrize(
    ("labels", "anger_to_contempt_in_test"),
    [("label.csv", [269, 16, 86, 15]), ("fer2013new.csv", [273, 18, 83, 16])],
)
def test_the_official_files_give_the_published_counts(
    tmp_path: Path, labels: str, anger_to_contempt_in_test: list[int]
) -> None:
    for split, folder in FOLDERS.items():
        (tmp_path / folder).mkdir()
        shutil.copy(OFFICIAL / f"label_{split}.csv", tmp_path / folder / "label.csv")

    votes = (
        ferplus.read_split_votes(tmp_path)
        if labels == "label.csv"
        else ferplus.read_joint_votes(OFFICIAL / labels)
    )
    kept = {split: ferplus.keep_majority(rows) for split, rows in votes.items()}

    assert {split: len(names) for split, (names, *_) in kept.items()} == COUNTS[labels]
    shared = ferplus.keep_shares(votes["train"])
    assert len(shared[0]) == SHARED_COUNTS[labels]
    # Whoever has a majority has shares, and the same label.
    by_name = dict(zip(shared[0], shared[1].tolist(), strict=True))
    for name, label in zip(*kept["train"][:2], strict=True):
        assert by_name[name] == label
    assert kept["test"][1].bincount().tolist()[4:] == anger_to_contempt_in_test
