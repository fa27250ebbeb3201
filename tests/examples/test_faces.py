"""The types of the databases, and the steps that their readers share."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import to_pil_image

from fer.data.faces import FaceSet, read_images, read_text, require_counts, require_files


def pixels(seed: int, channels: int = 1, height: int = 6, width: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (channels, height, width)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def save(path: Path, image: torch.Tensor) -> Path:
    to_pil_image(image).save(path)
    return path


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"images": torch.zeros(2, 1, 6, 5)}, r"images must be uint8 .* got torch.float32"),
        ({"images": torch.zeros(2, 6, 5, dtype=torch.uint8)}, r"images .* \(2, 6, 5\)"),
        ({"images": torch.zeros(2, 4, 6, 5, dtype=torch.uint8)}, r"images .* \(2, 4, 6, 5\)"),
        ({"labels": torch.tensor([0])}, r"labels must be int64 \(2,\), got torch.int64 \(1,\)"),
        ({"labels": torch.tensor([0.0, 1.0])}, r"labels must be int64 .* got torch.float32"),
        ({"names": ("a.png",)}, r"names must be 2 names, got 1"),
        ({"units": torch.zeros(1, 3)}, r"units must be float32 \(2, A\), .* \(1, 3\)"),
        ({"units": torch.zeros(2)}, r"units must be float32 \(2, A\), .* \(2,\)"),
        ({"shares": torch.zeros(1, 3)}, r"shares must be float32 \(2, K\), .* \(1, 3\)"),
        ({"shares": torch.zeros(2, 3).double()}, r"shares must be float32 \(2, K\), .*float64"),
        ({"units": torch.zeros(2, 3, dtype=torch.float64)}, r"units .* torch.float64"),
    ],
)
def test_a_face_set_rejects_parts_that_do_not_fit(change: dict[str, Any], match: str) -> None:
    images, names = torch.zeros(2, 1, 6, 5, dtype=torch.uint8), ("a.png", "b.png")
    faces = FaceSet(images, torch.tensor([0, 1]), names, torch.zeros(2, 3))
    with pytest.raises(ValueError, match=match):
        replace(faces, **change)


def test_images_keep_pixels_and_order_with_the_channels_of_the_mode(tmp_path: Path) -> None:
    gray = [save(tmp_path / f"{i}.png", pixels(i)) for i in range(3)]
    color = save(tmp_path / "color.png", pixels(0, channels=3))
    read = read_images(gray[::-1], gray=True)
    assert read.dtype == torch.uint8
    assert torch.equal(read, torch.stack([pixels(i) for i in (2, 1, 0)]))
    assert torch.equal(read_images([color], gray=False), pixels(0, channels=3)[None])
    assert torch.equal(read_images(gray[:1], gray=False), pixels(0).expand(1, 3, 6, 5))
    assert read_images([gray[0], color], gray=True).shape == (2, 1, 6, 5)


def test_progress_is_shown_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [save(tmp_path / "a.png", pixels(0))]
    read_images(paths, gray=True, title="faces")
    assert capsys.readouterr().err == ""
    read_images(paths, gray=True, title="faces", progress=True)
    assert "faces: 100%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ending", "damage", "reason"),
    [
        ("png", lambda data: b"", "."),
        ("png", lambda data: b"not an image", "."),
        ("png", lambda data: data[: len(data) // 2], "."),
        ("png", lambda data: data[:-20], "."),
        ("png", lambda data: data[:-14] + b"\0\0" + data[-12:], "."),
        ("jpg", lambda data: data[:-200], ".*truncated"),
    ],
    ids=["empty", "text", "half", "without-its-end", "wrong-checksum", "jpeg"],
)
def test_a_damaged_file_is_named(
    tmp_path: Path, ending: str, damage: Callable[[bytes], bytes], reason: str
) -> None:
    good, bad = save(tmp_path / f"good.{ending}", pixels(0, 3, 48, 48)), tmp_path / f"bad.{ending}"
    bad.write_bytes(damage(good.read_bytes()))
    with pytest.raises(ValueError, match=rf"bad\.{ending} cannot be decoded: {reason}"):
        read_images([good, bad], gray=ending == "png")


def test_images_of_other_depths_and_sizes_are_named(tmp_path: Path) -> None:
    Image.new("I;16", (5, 6), 40_000).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match=r"deep\.png cannot be decoded: expected 8 bits .* I;16"):
        read_images([tmp_path / "deep.png"], gray=True)
    paths = [save(tmp_path / f"{i}.png", pixels(i)) for i in range(2)]
    paths += [save(tmp_path / f"wide{i}.png", pixels(i, width=7)) for i in range(2)]
    match = r"wide0\.png is 7 x 6, but .*0\.png is 5 x 6; align_faces\.py cuts faces out"
    with pytest.raises(ValueError, match=match):
        read_images(paths, gray=True)


def test_missing_files_are_counted_and_the_first_three_named(tmp_path: Path) -> None:
    there = save(tmp_path / "there.png", pixels(0))
    missing = [tmp_path / f"gone{i}.png" for i in range(5)]
    missing[0].mkdir()
    require_files([there])
    match = r"5 of 6 image files are missing: .*gone0\.png, .*gone1\.png, .*gone2\.png, \.\.\.$"
    with pytest.raises(FileNotFoundError, match=match):
        read_images([there, *missing], gray=True)
    with pytest.raises(FileNotFoundError, match=r"3 of 3 .* missing: .*gone4\.png$"):
        require_files(missing[2:])
    with pytest.raises(ValueError, match="paths must name at least one image file, got none"):
        read_images([], gray=True)


def test_counts_name_every_split_and_the_way_on() -> None:
    expected = {"train": 12_271, "test": 3_068}
    require_counts("RAF-DB", {"test": 3_068, "train": 12_271}, expected)
    match = (
        r"RAF-DB .*\(train: expected 12,271, found 2; test: expected 3,068, found 0; "
        r"valid: expected 0, found 1\).*check_counts=False .*--no-check-counts"
    )
    with pytest.raises(ValueError, match=match):
        require_counts("RAF-DB", {"train": 2, "valid": 1}, expected)


def test_text_is_read_without_a_byte_order_mark_and_must_be_there(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    with pytest.raises(FileNotFoundError, match=r"label file .*labels\.txt does not exist"):
        read_text(path)
    for content, match in ((b" \n\n", "is empty"), (b"\x89PNG\xff", "is not UTF-8 text")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"label file .*labels\.txt {match}"):
            read_text(path)
    path.write_bytes(b"\xef\xbb\xbfa\r\nb")
    assert read_text(path) == "a\nb"
