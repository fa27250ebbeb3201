"""Read and write the files in a run's folder, which stay intact if the process is killed."""

import csv
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically: readers see either the old or the new file."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        # On a full disk, a partial checkpoint would occupy the remaining space.
        part.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain values as JSON."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a file written by `write_json`."""
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV with the union of their columns."""
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors and plain values, which `read_checkpoint` reads without executing code."""
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    write_atomically(path, buffer.getvalue())


def load_tensors(path: Path, device: torch.device | str = "cpu") -> Any:
    """Read a file of tensors and plain values; explain in a `ValueError` if it cannot be read."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch.load raises many types of exceptions for damaged files.
        others = [name for name in ("best.pt", "last.pt") if name != path.name]
        whole = [name for name in others if (path.parent / name).is_file()]
        instead = f"; {' or '.join(whole)} beside it may be whole" if whole else ""
        raise ValueError(
            f"{path} cannot be read as tensors and plain values: it is cut off, damaged or no "
            f"checkpoint{instead}"
        ) from error


def read_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint written by `write_checkpoint`."""
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path} does not exist")
    content = load_tensors(path, device)
    if not isinstance(content, dict) or "classes" not in content:
        raise ValueError(f"{path} is not a checkpoint of this program")
    return content


def create_run_folder(wanted: Path | None, name: str, options: Mapping[str, Any]) -> Path:
    """Create the folder of a new run with its config.json; remove it if that fails."""
    folder = create_folder(wanted, name)
    try:
        write_json(folder / "config.json", options)
    except OSError:
        folder.rmdir()
        raise
    return folder


def create_folder(wanted: Path | None, name: str) -> Path:
    """Create the folder of a new run: `wanted`, or the next free folder of that name in runs/."""
    if wanted is not None:
        if wanted.exists():
            raise FileExistsError(f"{wanted} exists; go on with --resume {wanted}, or name another")
        wanted.mkdir(parents=True)
        return wanted
    for number in range(1, 10_000):
        folder = Path("runs") / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise FileExistsError(f"runs/{name} and 9,998 numbered folders exist; name one with --out")


@contextmanager
def lock_folder(folder: Path, writing: bool = True) -> Iterator[None]:
    """Lock a run's folder within a block; the lock is released however the process ends.

    Only the first process of a run writes and takes the lock. Partial files of a killed process
    are removed.
    """
    if not writing:
        yield
        return
    lock = FileLock(folder / "lock", blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise ValueError(f"another process writes to {folder}") from error
    for part in folder.glob("*.part"):
        part.unlink()
    try:
        yield
    finally:
        lock.release()


def require_disk_space(folder: Path, size: int) -> None:
    """Raise unless `size` bytes can be written to `folder`, to detect a full disk in advance.

    Raises:
        OSError: the folder is not writable.
        ValueError: there is not enough space.
    """
    write_atomically(folder / "probe", b"written to see whether this folder can be written to")
    (folder / "probe").unlink()
    free = shutil.disk_usage(folder).free
    if free < size:
        raise ValueError(
            f"{folder} has room for {free / 2**20:,.0f} MiB, and the checkpoints of this run need "
            f"{size / 2**20:,.0f}"
        )
