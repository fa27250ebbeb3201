import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from fer.model import checkpoint


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoint.write_checkpoint(path, {"classes": ["a"], "model": {"w": torch.arange(3)}})
    content = checkpoint.read_checkpoint(path)
    assert content["classes"] == ["a"]
    assert torch.equal(content["model"]["w"], torch.arange(3))
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]
    # A table has the columns of all rows.
    checkpoint.write_csv(tmp_path / "a.csv", [{"a": 1}, {"a": 2, "b": 0.25}])
    assert (tmp_path / "a.csv").read_text() == "a,b\n1,\n2,0.25\n"


def test_a_failed_write_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.json"
    checkpoint.write_json(path, {"epoch": 1})
    monkeypatch.setattr("os.fsync", Mock(side_effect=OSError("no space left on device")))
    with pytest.raises(OSError, match="no space"):
        checkpoint.write_json(path, {"epoch": 2})
    assert path.read_text() == '{\n  "epoch": 1\n}\n'
    with pytest.raises(OSError, match="no space"):
        checkpoint.create_run_folder(tmp_path / "run", "", {"epochs": 1})
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_rejects_a_file_that_would_run_code_and_does_not_run_it(tmp_path: Path) -> None:
    torch.save({"classes": [], "model": Touch(tmp_path / "ran")}, tmp_path / "last.pt")
    with pytest.raises(ValueError, match="cannot be read as tensors and plain values"):
        checkpoint.read_checkpoint(tmp_path / "last.pt")
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(Touch(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


def test_a_damaged_file_is_told_with_what_may_be_whole(tmp_path: Path) -> None:
    path, whole = tmp_path / "last.pt", "best.pt beside it may be whole"
    with pytest.raises(FileNotFoundError, match="does not exist"):
        checkpoint.read_checkpoint(path)
    torch.save({"weights": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="is not a checkpoint of this program"):
        checkpoint.read_checkpoint(path)
    half = path.read_bytes()[:-200]
    for beside, end in {"other.txt": "no checkpoint", "best.pt": whole}.items():
        (tmp_path / beside).touch()
        for content in (b"", b"no checkpoint", b"PK\x03\x04 cut off", half):
            path.write_bytes(content)
            with pytest.raises(ValueError, match=r"last\.pt cannot be read as tensors") as found:
                checkpoint.read_checkpoint(path)
            assert str(found.value).endswith(end)
            assert "\n" not in str(found.value)


def test_new_folders_never_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folders = [checkpoint.create_folder(None, "run") for _ in range(3)]
    assert [str(folder) for folder in folders] == ["runs/run", "runs/run-2", "runs/run-3"]
    with pytest.raises(FileExistsError, match="exists; go on with --resume"):
        checkpoint.create_folder(Path("runs/run"), "")


def assert_held(folder: Path) -> None:
    held = pytest.raises(ValueError, match=f"another process writes to {folder}")
    with held, checkpoint.lock_folder(folder):
        pytest.fail("two hold one folder")


HOLD = """
import sys
from filelock import FileLock

lock = FileLock(sys.argv[1])
lock.acquire()
print(1, flush=True)
input()
"""


def test_a_folder_is_held_by_one_and_free_again_even_if_that_is_killed(tmp_path: Path) -> None:
    with checkpoint.lock_folder(tmp_path):
        assert_held(tmp_path)
        with checkpoint.lock_folder(tmp_path, writing=False):
            pass
    command = [sys.executable, "-c", HOLD, str(tmp_path / "lock")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        assert_held(tmp_path)
        process.kill()
        process.wait()
    with checkpoint.lock_folder(tmp_path):
        pass


def test_rejects_a_folder_without_room_or_write_access(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.require_disk_space(tmp_path, 10)
    with pytest.raises(ValueError, match=r"has room for .* MiB, and the checkpoints of this run"):
        checkpoint.require_disk_space(tmp_path, 2 * shutil.disk_usage(tmp_path).free)
    assert list(tmp_path.iterdir()) == []

    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(f"permission denied: {path}")

    # Whoever runs the tests as root may write anywhere.
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError, match="probe"):
        checkpoint.require_disk_space(tmp_path, 10)
