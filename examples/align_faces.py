"""Align and crop the faces in a folder tree by their eyes, as in section 4.2 of the paper.

    python examples/align_faces.py PICTURES OUT --detector mtcnn
    python examples/align_faces.py PICTURES OUT --landmarks eyes.csv
    python examples/align_faces.py basic/Image/original OUT --landmarks basic/Annotation/manual

The command writes the tree of PICTURES to OUT as PNG files of 256 x 256, the detected eyes to
eyes.csv, which --landmarks reads, and the pictures that failed, with reasons, to not_aligned.csv.
A second call resumes a stopped one. The exit status is 1 if any picture is not aligned.

A custom detector needs one method, detect(image), which takes an RGB Pillow image and returns
points (faces, points, 2) with the eyes first. Select it with --detector MODULE:CLASS.
"""

import argparse
import csv
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from fer.alignment.eyes import Crop, FindEyes, add_options, make_eye_finder
from fer.alignment.landmarks import COLUMNS
from fer.model import checkpoint
from fer.report.pictures import as_picture, list_pictures, read_picture

EYES, NOT_ALIGNED, CROP = "eyes.csv", "not_aligned.csv", "crop.json"
HEADER = ("name", *COLUMNS, "faces")

Row = list[object]


@dataclass(frozen=True)
class Job:
    """The pictures to align, by their paths relative to their tree, and how to align them."""

    pictures: Mapping[str, Path]
    out: Path
    find_eyes: FindEyes
    crop: Crop

    def crop_path(self, name: str) -> Path:
        """Return the path of the crop of a picture."""
        return (self.out / name).with_suffix(".png")


def find_pictures(source: Path, out: Path) -> dict[str, Path]:
    """Return the pictures of a tree by name; raise if two of them would have the same crop."""
    if not source.is_dir():
        raise FileNotFoundError(f"there is no folder {source}")
    if out.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"OUT must not lie in the folder of pictures, got {out}")
    pictures = {path.relative_to(source).as_posix(): path for path in list_pictures(source)}
    if not pictures:
        raise ValueError(f"{source} holds no pictures")
    taken: dict[Path, str] = {}
    for name in pictures:
        other = taken.setdefault(Path(name).with_suffix(".png"), name)
        if other != name:
            raise ValueError(f"{other} and {name} would have one and the same crop")
    return pictures


def prepare_output(job: Job, overwrite: bool) -> list[str]:
    """Prepare the folder `job.out` and return the names of the remaining pictures."""
    crop, rows = asdict(job.crop), []
    if not overwrite and (job.out / CROP).is_file():
        before = checkpoint.read_json(job.out / CROP)
        if before != crop:
            raise ValueError(f"{job.out} holds crops by {before}, not by {crop}; use --overwrite")
        with (job.out / EYES).open(newline="", encoding="utf-8") as file:
            rows = [row for row in [*csv.reader(file)][1:] if job.crop_path(row[0]).is_file()]
    elif not overwrite and job.out.is_dir() and any(job.out.iterdir()):
        raise ValueError(f"{job.out} is not empty, and not from this program; use --overwrite")
    job.out.mkdir(parents=True, exist_ok=True)
    write_rows(job.out / EYES, HEADER, rows)
    checkpoint.write_json(job.out / CROP, crop)
    done = {row[0] for row in rows}
    return [name for name in job.pictures if name not in done]


def write_rows(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a table, which may have no rows, as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    checkpoint.write_atomically(path, text.getvalue().encode())


def align_one(job: Job, name: str) -> Row:
    """Write the crop of a picture and return its row of eyes.csv."""
    picture = read_picture(job.pictures[name])
    eyes, faces = job.find_eyes(name, picture)
    content = io.BytesIO()
    as_picture(job.crop(picture, eyes)).save(content, format="PNG")
    target = job.crop_path(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write_atomically(target, content.getvalue())
    return [name, *(round(each, 3) for each in eyes.flatten().tolist()), faces]


def align_all(job: Job, names: Sequence[str]) -> tuple[int, list[Row]]:
    """Crop pictures; return the number with several faces, and the failed ones with reasons."""
    several, failed = 0, []
    try:
        with (job.out / EYES).open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            for name in tqdm(names, unit="img", disable=not sys.stderr.isatty()):
                try:
                    row = align_one(job, name)
                except ValueError as error:
                    failed.append([name, str(error)])
                    continue
                # Write the row after the crop, so that a row without a crop means a deleted crop.
                writer.writerow(row)
                file.flush()
                several += row[-1] != 1
    finally:
        write_rows(job.out / NOT_ALIGNED, ("name", "reason"), failed)
    return several, failed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", type=Path, metavar="PICTURES", help="a folder tree of pictures")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder for the crops")
    parser.add_argument("--size", type=int, default=256, help="of the crop; default 256")
    parser.add_argument("--overwrite", action="store_true", help="do what is done once more")
    add_options(parser, required=True)
    given = parser.parse_args(arguments)
    try:
        crop = Crop(given.size, given.eye_distance, given.eye_height)
        pictures = find_pictures(given.pictures, given.out)
        find_eyes = make_eye_finder(given)
        assert find_eyes is not None  # the parser requires one of both
        job = Job(pictures, given.out, find_eyes, crop)
        names = prepare_output(job, given.overwrite)
        several, failed = align_all(job, names)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"{len(names) - len(failed)} aligned, {len(pictures) - len(names)} done before")
    if several:
        print(f"{several} show more than one face; see the column faces of {job.out / EYES}")
    if failed:
        print(f"{len(failed)} not aligned; see {job.out / NOT_ALIGNED}", file=sys.stderr)
    return min(len(failed), 1)


if __name__ == "__main__":
    sys.exit(main())
