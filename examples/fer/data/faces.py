"""Labeled faces in memory, and the functions that all database readers share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor
from tqdm import tqdm

MAX_LISTED_FILES = 3


@dataclass(frozen=True, eq=False)
class FaceSet:
    """The decoded faces of one split.

    Attributes:
        images: uint8 (n, C, H, W), with one channel (gray) or three (RGB).
        labels: int64 (n,), indices into `Database.classes`.
        names: n names, as given by the database.
        units: float32 (n, A), the intensity of each action unit in [0, 1]; only for synthetic
            faces.
        subjects: n names of the people shown, if known.
        shares: float32 (n, K), the share of each class in the votes for a face; only for training
            faces of FER+ when they are trained on their votes.
    """

    images: torch.Tensor
    labels: torch.Tensor
    names: tuple[str, ...]
    units: torch.Tensor | None = None
    subjects: tuple[str, ...] | None = None
    shares: torch.Tensor | None = None

    def __post_init__(self) -> None:
        images, labels, units = self.images, self.labels, self.units
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"images must be uint8 (n, 1 or 3, H, W), got {_describe(images)}")
        count = len(images)
        if labels.dtype != torch.int64 or labels.shape != (count,):
            raise ValueError(f"labels must be int64 ({count},), got {_describe(labels)}")
        if len(self.names) != count:
            raise ValueError(f"names must be {count} names, got {len(self.names)}")
        if self.subjects is not None and len(self.subjects) != count:
            raise ValueError(f"subjects must be {count} names, got {len(self.subjects)}")
        for name, letter, rows in (("units", "A", units), ("shares", "K", self.shares)):
            if rows is not None and (
                rows.dtype != torch.float32 or rows.ndim != 2 or len(rows) != count
            ):
                raise ValueError(
                    f"{name} must be float32 ({count}, {letter}), got {_describe(rows)}"
                )

    def __len__(self) -> int:
        return len(self.names)

    def select(self, index: torch.Tensor) -> "FaceSet":
        """Return the faces at `index`, in that order."""
        places = index.tolist()
        return FaceSet(
            self.images[index],
            self.labels[index],
            tuple(self.names[i] for i in places),
            None if self.units is None else self.units[index],
            None if self.subjects is None else tuple(self.subjects[i] for i in places),
            None if self.shares is None else self.shares[index],
        )


@dataclass(frozen=True, eq=False)
class Database:
    """A named set of classes and the splits "train", "test" and, if it exists, "valid".

    A database for cross-validation has one split, "all".

    Attributes:
        name: the name of the database.
        classes: the class names, in the order of the labels.
        splits: the faces of each split.
        units: the names of the action units, in the order of the columns of `FaceSet.units`.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[str, FaceSet]
    units: tuple[str, ...] = ()

    @property
    def sizes(self) -> dict[str, int]:
        """The number of faces in each split."""
        return {split: len(faces) for split, faces in self.splits.items()}


def read_text(path: Path) -> str:
    """Return the text of a label file; raise if the file is missing, empty or not UTF-8 text."""
    if not path.is_file():
        raise FileNotFoundError(f"label file {path} does not exist")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"label file {path} is not UTF-8 text: {error}") from error
    if not text.strip():
        raise ValueError(f"label file {path} is empty")
    return text


def require_counts(name: str, found: Mapping[str, int], expected: Mapping[str, int]) -> None:
    """Raise `ValueError` unless the counts, such as images per split, are the published ones."""
    if dict(found) == dict(expected):
        return
    splits = [*expected, *(split for split in found if split not in expected)]
    lines = (
        f"{split}: expected {expected.get(split, 0):,}, found {found.get(split, 0):,}"
        for split in splits
    )
    raise ValueError(
        f"{name} does not have the published numbers ({'; '.join(lines)}); to go on "
        "with what is there, pass check_counts=False (--no-check-counts on the command line)"
    )


def require_files(paths: Sequence[Path]) -> None:
    """Raise `FileNotFoundError` with the number of missing files and the first of their names."""
    missing = [path for path in paths if not path.is_file()]
    if missing:
        named = ", ".join(str(path) for path in missing[:MAX_LISTED_FILES])
        more = ", ..." if len(missing) > MAX_LISTED_FILES else ""
        raise FileNotFoundError(
            f"{len(missing):,} of {len(paths):,} image files are missing: {named}{more}"
        )


def read_images(
    paths: Sequence[Path], *, gray: bool, progress: bool = False, title: str = "images"
) -> torch.Tensor:
    """Decode image files of one size into a uint8 tensor (n, C, H, W).

    Args:
        paths: the files, at least one.
        gray: return one channel instead of three (RGB).
        progress: show a progress bar, labeled with `title`.
        title: what is being read.

    Raises:
        ValueError: a file cannot be decoded, or its size differs from that of the first.
    """
    if not paths:
        raise ValueError("paths must name at least one image file, got none")
    require_files(paths)
    mode = "L" if gray else "RGB"
    images = torch.empty(0, dtype=torch.uint8)
    for index, path in enumerate(tqdm(paths, desc=title, unit="img", disable=not progress)):
        image = _read_image(path, mode)
        if index == 0:
            images = image.new_empty((len(paths), *image.shape))
        elif image.shape != images.shape[1:]:
            raise ValueError(
                f"images of one split must have one size: {path} is {_format_size(image)}, "
                f"but {paths[0]} is {_format_size(images[0])}; align_faces.py cuts faces out in "
                "one size"
            )
        images[index] = image
    return images


def _read_image(path: Path, mode: str) -> torch.Tensor:
    # Use Pillow instead of torchvision.io, whose decoders are deprecated since 0.29 and cause a
    # segmentation fault on a PNG with a wrong checksum. `verify` detects errors that decoding
    # alone ignores, such as that checksum or a truncated file; the file must then be opened again.
    try:
        with Image.open(path) as image:
            image.verify()
        with Image.open(path) as image:
            if image.mode[0] in "IF":
                raise ValueError(f"expected 8 bits a channel, got mode {image.mode}")
            decoded: torch.Tensor = pil_to_tensor(image.convert(mode))
    except Exception as error:  # Pillow's decoders raise many types, including SyntaxError.
        raise ValueError(f"image file {path} cannot be decoded: {error}") from error
    return decoded


def _format_size(image: torch.Tensor) -> str:
    return f"{image.shape[-1]} x {image.shape[-2]}"


def _describe(tensor: torch.Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)}"
