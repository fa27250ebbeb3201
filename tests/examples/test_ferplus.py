"""The reader of FER+, on small trees in its own layout and on the official label files."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fer.data import ferplus
from fer.data.faces import Database
from fer.data.ferplus import COUNTS, FOLDERS, SHARES_COUNTS, load_ferplus
from fer.data.votes import COLUMNS
from image_trees import class_names, write_image

OFFICIAL = Path(__file__).resolve().parents[2] / "../shared/data/ferplus"
SPLIT, JOINT = "label.csv", "fer2013new.csv"
BOX, ZEROS = '"(0, 0, 48, 48)"', ",0" * 10
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


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with the images of `SPLIT_VOTES` and both label files, with equal votes in the two."""
    joint = [",".join(("Usage", "Image name", *COLUMNS)), "Training,," + ",".join("0" * 9) + ",10"]
    for start, (split, rows) in zip((0, 100, 200), SPLIT_VOTES.items(), strict=True):
        folder, lines = tmp_path / FOLDERS[split], []
        for number, votes in enumerate(rows, start=start):
            name, counts = f"fer{number:07}.png", ",".join(map(str, votes))
            write_image(folder / name, number, (48, 48))
            lines.append(f"{name},{BOX},{counts}")
            joint.append(f"{USAGE[split]},{name},{counts}")
        (folder / SPLIT).write_text("\n".join(lines) + "\n")
    (tmp_path / JOINT).write_text("\n".join(joint) + "\n")
    return tmp_path


def load(root: Path, labels: str = SPLIT, *, shares: bool = False) -> Database:
    return load_ferplus(root, labels=labels, shares=shares, check_counts=False)


def append(path: Path, line: str) -> None:
    path.write_text(f"{path.read_text()}{line}\n")


@pytest.mark.parametrize("labels", COUNTS)
def test_reads_the_faces_with_a_majority(root: Path, labels: str) -> None:
    database = load(root, labels)
    assert database.name == "ferplus"
    assert list(database.splits) == ["train", "valid", "test"]
    for split, (names, expressions) in EXPECTED.items():
        faces = database.splits[split]
        assert faces.names == names
        assert class_names(database, split) == expressions
        values = [int(name[3:10]) for name in names]
        expected = torch.tensor(values, dtype=torch.uint8)[:, None, None, None]
        assert torch.equal(faces.images, expected.expand(-1, 1, 48, 48))


def test_only_the_faces_that_are_kept_and_the_chosen_label_file_are_needed(root: Path) -> None:
    (root / FOLDERS["train"] / "fer0000001.png").write_bytes(b"")
    (root / FOLDERS["valid"] / "fer0000100.png").unlink()
    joint = (root / JOINT).read_text()
    (root / JOINT).unlink()
    assert len(load(root).splits["train"]) == 2
    (root / JOINT).write_text(joint)
    for folder in FOLDERS.values():
        (root / folder / SPLIT).unlink()
    assert len(load(root, JOINT).splits["train"]) == 2


def test_windows_line_ends_do_not_matter(root: Path) -> None:
    path = root / JOINT
    path.write_bytes(path.read_bytes().strip().replace(b"\n", b"\r\n"))
    assert load(root, JOINT).splits["test"].names == EXPECTED["test"][0]


def test_faces_are_kept_for_their_shares_in_training_alone(root: Path) -> None:
    database = load(root, shares=True)
    # The tie of five votes each has no majority, and two shares.
    train = database.splits["train"]
    assert train.names == ("fer0000000.png", "fer0000001.png", "fer0000002.png")
    assert class_names(database, "train") == ["anger", "neutral", "happiness"]
    assert train.shares is not None
    wanted = [[0, 0, 0, 0, 1, 0, 0, 0], [0.5, 0.5, 0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0, 0]]
    assert train.shares.tolist() == wanted
    for split in ("valid", "test"):
        assert database.splits[split].names == EXPECTED[split][0]
        assert database.splits[split].shares is None


@pytest.mark.parametrize(
    ("labels", "train", "shared"), [(SPLIT, "25,045", "27,947"), (JOINT, "25,060", "27,956")]
)
def test_the_published_counts_are_required(
    root: Path, labels: str, train: str, shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    match = rf"\({labels}\) .*train: expected {train}, found 2; valid: .*, found 1; test: "
    with pytest.raises(ValueError, match=match):
        load_ferplus(root, labels=labels)
    with pytest.raises(ValueError, match=rf"train: expected {shared}, found 3"):
        load_ferplus(root, labels=labels, shares=True)
    monkeypatch.setattr(ferplus, "COUNTS", {labels: {"train": 2, "valid": 1, "test": 2}})
    assert len(load_ferplus(root, labels=labels).splits["test"]) == 2


def without_valid(root: Path) -> None:
    shutil.move(root / "FER2013Valid", root / "fer2013valid-old")


def as_sheets(root: Path) -> None:
    without_valid(root)
    (root / "train_0.png").touch()
    (root / "unpack.py").touch()


def without_image(root: Path) -> None:
    """Let an image be damaged too, which must not be decoded first."""
    (root / "FER2013Train" / "fer0000000.png").write_bytes(b"")
    (root / "FER2013Test" / "fer0000202.png").unlink()


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (shutil.rmtree, r"root: there is no folder .*what_is_missing"),
        (without_valid, r"no FER\+ in .*; looked for .* FER2013Valid$"),
        (as_sheets, r"run `python unpack\.py OUT` in it first"),
        (without_image, r"1 of 5 .* missing: .*fer0000202\.png$"),
    ],
)
def test_what_is_missing_is_named(root: Path, spoil: Callable[[Path], None], match: str) -> None:
    spoil(root)
    with pytest.raises(FileNotFoundError, match=match):
        load(root)


@pytest.mark.parametrize(("labels", "folder"), [(SPLIT, "FER2013Valid"), (JOINT, "")])
def test_a_missing_or_empty_label_file_is_named(root: Path, labels: str, folder: str) -> None:
    (root / folder / labels).write_text("\n")
    with pytest.raises(ValueError, match=rf"label file .*{labels} is empty"):
        load(root, labels)
    (root / folder / labels).unlink()
    with pytest.raises(FileNotFoundError, match=rf"label file .*{labels} does not exist"):
        load(root, labels)
    with pytest.raises(ValueError, match=r"labels must be one of label.csv, .* got 'Label.csv'"):
        load(root, "Label.csv")


@pytest.mark.parametrize(
    ("labels", "line", "match"),
    [
        (SPLIT, f"fer0000109.png,{BOX},10", r"expected 12 columns, got 3: .*fer0000109"),
        (SPLIT, "", r"expected 12 columns, got 0"),
        (SPLIT, f'fer0000109.png,"(4, 0, 48, 48)"{ZEROS}', r"rectangle .* got '\(4, 0, 48, 48\)'"),
        (SPLIT, f"fer0000109.jpg,{BOX}{ZEROS}", r"a name like .* got 'fer0000109\.jpg'"),
        (SPLIT, f"../fer0000109.png,{BOX}{ZEROS}", r"a name like .* got '\.\./fer"),
        (SPLIT, f",{BOX}{ZEROS}", r"a name like .* got ''"),
        (SPLIT, f"fer0000109.png,{BOX}{ZEROS[:-1]}x", r"10 counts of votes, got .*'x'\]"),
        (SPLIT, f"fer0000109.png,{BOX}{ZEROS[:-1]}-1", r"10 counts of votes, got .*'-1'\]"),
        (SPLIT, f"fer0000101.png,{BOX}{ZEROS}", r"fer0000101\.png is listed a second time"),
        (SPLIT, f"fer0000001.png,{BOX}{ZEROS}", r"fer0000001\.png is listed a second time"),
        (JOINT, f"Train,fer0000009.png{ZEROS}", r"a usage of Training, .* got 'Train'"),
        (JOINT, "Training,fer0000009.png,3", r"expected 12 columns, got 3"),
        (JOINT, f"Training,fer0000009{ZEROS}", r"a name like .* got 'fer0000009'"),
        (JOINT, f"Training,fer0000009.png{ZEROS[:-1]}1.5", r"10 counts of votes, got .*'1\.5'\]"),
        (JOINT, f"Training,fer0000201.png{ZEROS}", r"fer0000201\.png is listed a second time"),
    ],
)
def test_a_bad_row_is_named(root: Path, labels: str, line: str, match: str) -> None:
    place, number = ("FER2013Valid/label.csv", 3) if labels == SPLIT else (labels, 11)
    append(root / place, f"{line}\nfer0000110.png")
    with pytest.raises(ValueError, match=rf"{place}, line {number}: .*{match}"):
        load(root, labels)


def test_fer2013new_csv_needs_its_own_columns(root: Path) -> None:
    path = root / JOINT
    path.write_text(path.read_text().replace("happiness,surprise", "surprise,happiness"))
    match = r"fer2013new\.csv, line 1: expected the header .*, got .*neutral,surprise,happiness"
    with pytest.raises(ValueError, match=match):
        load(root, JOINT)


def test_a_face_that_the_official_file_lists_twice_counts_twice(root: Path) -> None:
    name = ferplus.DUPLICATED_IMAGES[0]
    image = root / FOLDERS["train"] / "fer0000000.png"
    shutil.copy(image, image.with_name(name))
    for _ in range(2):
        append(root / JOINT, f"Training,{name},10{ZEROS[2:]}")
    assert load(root, JOINT).splits["train"].names[2:] == (name, name)


def test_a_split_without_any_majority_is_an_error(root: Path) -> None:
    (root / "FER2013Test" / SPLIT).write_text(f"fer0000201.png,{BOX}{ZEROS}")
    with pytest.raises(ValueError, match=r"label\.csv in .*: no test image has a majority label"):
        load(root)


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="the official label files are not at hand")
@pytest.mark.parametrize(
    ("labels", "anger_to_contempt_in_test"),
    [(SPLIT, [269, 16, 86, 15]), (JOINT, [273, 18, 83, 16])],
)
def test_the_official_files_give_the_published_counts(
    tmp_path: Path, labels: str, anger_to_contempt_in_test: list[int]
) -> None:
    for split, folder in FOLDERS.items():
        (tmp_path / folder).mkdir()
        shutil.copy(OFFICIAL / f"label_{split}.csv", tmp_path / folder / SPLIT)
    split_votes, joint_votes = ferplus.read_split_votes, ferplus.read_joint_votes
    votes = split_votes(tmp_path) if labels == SPLIT else joint_votes(OFFICIAL / labels)
    kept = {split: ferplus.select_majority(rows) for split, rows in votes.items()}
    assert {split: len(names) for split, (names, *_) in kept.items()} == COUNTS[labels]
    shared = ferplus.select_with_shares(votes["train"])
    assert len(shared[0]) == SHARES_COUNTS[labels]
    # Whoever has a majority has shares, and the same label.
    by_name = dict(zip(shared[0], shared[1].tolist(), strict=True))
    for name, label in zip(*kept["train"][:2], strict=True):
        assert by_name[name] == label
    assert kept["test"][1].bincount().tolist()[4:] == anger_to_contempt_in_test
