from pathlib import Path

import pytest
import torch

from fer import checkpoint


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoint.write_checkpoint(path, {"classes": ["a"], "model": {"w": torch.arange(3)}})
    content = checkpoint.read_checkpoint(path)
    assert content["classes"] == ["a"]
    assert torch.equal(content["model"]["w"], torch.arange(3))
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.json"
    checkpoint.write_json(path, {"epoch": 1})

    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        checkpoint.write_json(path, {"epoch": 2})
    assert path.read_text() == '{\n  "epoch": 1\n}\n'


def test_rejects_a_file_that_runs_code_or_is_something_else(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="is not a checkpoint of this program"):
        checkpoint.read_checkpoint(tmp_path / "other.pt")


def test_new_folders_never_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folders = [checkpoint.new_folder(None, "run") for _ in range(3)]
    assert [str(folder) for folder in folders] == ["runs/run", "runs/run-2", "runs/run-3"]
    with pytest.raises(FileExistsError, match="exists; go on with --resume"):
        checkpoint.new_folder(Path("runs/run"), "")
