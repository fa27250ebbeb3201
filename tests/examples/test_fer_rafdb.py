import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fer_rafdb
from fer.evaluation import predictions as evaluation
from fer.model import checkpoint
from small_runs import (
    COMMAND,
    assert_same,
    batch_of,
    make_run,
    read_metrics,
    read_stored,
    refuses,
    start_run,
)

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "fer_rafdb.py"
SMALL = ["--faces", "160", "--image-size", "32", "--batch-size", "32", "--epochs", "2"]
SMALL += ["--device", "cpu"]


def run(folder: Path, *arguments: str) -> dict[str, Any]:
    return fer_rafdb.main([*SMALL, "--out", str(folder), *arguments])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    run(folder)
    return folder


def test_a_run_leaves_all_that_it_promises_in_a_folder_of_its_own(finished: Path) -> None:
    names = "config.json metrics.csv summary.json last.pt best.pt evaluation.pt lock"
    pictures = {"confusion.png", "intra_weights.png"}
    assert {path.name for path in finished.iterdir()} == {*names.split(), *pictures}
    assert [row["epoch"] for row in read_metrics(finished)] == ["1", "2"]
    summary = checkpoint.read_json(finished / "summary.json")
    assert (summary["last"]["epoch"], summary["best_chosen_on"]) == (2, "test")
    best = max(float(row["test_accuracy"]) for row in read_metrics(finished))
    assert summary["best"]["test_accuracy"] == pytest.approx(best)
    assert summary["faces"] == {"train": 160, "test": 64}
    state = checkpoint.read_checkpoint(finished / "last.pt")
    assert state["classes"][0] == "Surprise"
    assert "compactness.centers.value" in state["criterion"]
    with pytest.raises(SystemExit, match="exists; go on with --resume"):
        run(finished)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("intra", [True, False])
def test_a_run_keeps_how_much_its_intra_w_varies(tmp_path: Path, intra: bool) -> None:
    summary = start_run(tmp_path / "run", intra=intra, epochs=1).train(quiet=True)
    stored = checkpoint.read_json(tmp_path / "run" / "summary.json")
    assert stored.get("intra_spread") == summary.get("intra_spread")
    assert ("intra_spread" in stored) == intra
    if intra:
        found = evaluation.read_evaluation(tmp_path / "run" / "evaluation.pt").evaluation
        weights = found.intra_weights
        assert weights is not None
        spread = weights.std(0, dtype=np.float64).mean() / weights.mean(dtype=np.float64)
        assert stored["intra_spread"]["spread"] == pytest.approx(spread, rel=1e-5)


@pytest.mark.usefixtures("small")
def test_training_lowers_the_loss() -> None:
    run = make_run()
    batch = batch_of(run)
    losses = [float(run.step(*batch)["classification"]) for _ in range(10)]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.usefixtures("small")
def test_the_same_command_gives_the_same_weights_and_another_seed_does_not(tmp_path: Path) -> None:
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        fer_rafdb.main([*COMMAND, "--seed", str(seed), "--out", str(tmp_path / name)])
    first, again, other = (
        read_stored(tmp_path / name)["model"] for name in ("first", "again", "other")
    )
    assert_same(again, first)
    assert not torch.equal(other["1.classifier.weight"], first["1.classifier.weight"])


@pytest.mark.cuda
@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_trains_on_a_gpu(tmp_path: Path, amp: str) -> None:
    summary = run(tmp_path / "gpu", "--device", "cuda", "--amp", amp)
    assert summary["options"]["device"] == "cuda"
    first, last = read_metrics(tmp_path / "gpu")
    assert float(last["train_total"]) < float(first["train_total"])
    state = checkpoint.read_checkpoint(tmp_path / "gpu" / "last.pt")
    assert bool(state["criterion"]["compactness.centers.seen"].all())


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_train_one_model(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(SCRIPT), *SMALL, "--epochs", "1"]
    command += ["--out", str(tmp_path / "two")]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    subprocess.run(command, env=environment, check=True, timeout=280)
    summary = checkpoint.read_json(tmp_path / "two" / "summary.json")
    # 64 test faces, each counted once: the accuracy is a multiple of 1 / 64.
    assert (summary["last"]["test_accuracy"] * 64 / 100) % 1 == pytest.approx(0, abs=1e-9)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_frozen_backbone_stays_as_it_is(accumulate: int, tmp_path: Path) -> None:
    start_run(tmp_path / "first").train(quiet=True)
    start = str(tmp_path / "first" / "last.pt")
    changes = {"freeze_backbone": True, "backbone_weights": start, "accumulate": accumulate}
    start_run(tmp_path / "second", seed=1, weight_decay=0.1, **changes).train(quiet=True)
    before, after = (read_stored(tmp_path / name)["model"] for name in ("first", "second"))
    # The statistics that it normalizes by too.
    assert any("running_mean" in name for name in before)
    for name, value in before.items():
        assert torch.equal(after[name], value) == name.startswith("0."), name


@pytest.mark.usefixtures("small")
def test_clipping_bounds_the_gradient() -> None:
    run = make_run(clip=0.01)
    run.step(*batch_of(run))
    norms = [each.grad.norm() for each in run.parameters if each.grad is not None]
    assert float(torch.stack(norms).norm()) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("share", "want"),
    [
        (0.0, [2.0] * 10),
        (0.5, [0.0, 0.4, 0.8, 1.2, 1.6, *[2.0] * 5]),
        (1.0, [0.2 * i for i in range(10)]),
    ],
)
def test_the_balance_loss_is_warmed_up_by_its_share(share: float, want: list[float]) -> None:
    run = make_run(lambda_balance=2.0, balance_warmup=share, lambda_compactness=0.0)
    assert (run.steps, run.options.epochs) == (5, 2)
    for weight in want:
        losses = run.step(*batch_of(run))
        terms = losses["classification"] + weight * losses["balance"]
        terms += run.options.lambda_distribution * losses["distribution"]
        torch.testing.assert_close(losses["total"], terms)
        assert losses["balance"] > 0.001


@pytest.mark.usefixtures("small")
def test_averaged_weights_are_evaluated_and_follow_by_their_decay() -> None:
    run = make_run(ema=0.75)
    assert run.ema is not None
    name, after = "1.classifier.weight", []
    for _ in range(3):
        run.step(*batch_of(run))
        after.append(run.model.state_dict()[name].clone())
    want = 0.75 * (0.75 * after[0] + 0.25 * after[1]) + 0.25 * after[2]
    torch.testing.assert_close(run.ema.module.state_dict()[name], want)
    found = run.evaluate("test").probabilities
    run.ema.module.load_state_dict(run.model.state_dict())
    assert not np.array_equal(run.evaluate("test").probabilities, found)


@pytest.mark.usefixtures("no_training")
def test_a_full_disk_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    refuses("error: .* has room for 1 MiB", *COMMAND, "--out", str(tmp_path / "run"))


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("more", "match"),
    [
        (["--backbone-weights=nowhere.pt"], "nowhere.pt"),
        (["--amp=fp16"], "--amp fp16 needs a GPU"),
        (["--num-latents=0"], "num_latents"),
        (["--faces=4"], "do not fill a batch"),
        (["--fold=1"], "it has no folds"),
        (["--dataset=rafdb", "--data=nowhere"], "nowhere"),
        ([f"--out={Path(__file__) / 'run'}"], Path(__file__).name),
    ],
)
def test_rejects_before_a_folder_is_made(more: list[str], match: str, tmp_path: Path) -> None:
    refuses(f"error: .*{match}", *COMMAND, "--out", str(tmp_path / "run"), *more)
    assert not (tmp_path / "run").exists()
