"""Train FDRL, or the paper's baseline, to recognize facial expressions.

    python examples/fer_rafdb.py                                       # synthetic faces
    python examples/fer_rafdb.py --dataset rafdb --data DIR --preset paper
    python examples/fer_rafdb.py --dataset ferplus --data DIR --head linear
    python examples/fer_rafdb.py --resume runs/NAME
    torchrun --nproc-per-node 4 examples/fer_rafdb.py ...

A run leaves a folder with config.json, metrics.csv, summary.json, last.pt, best.pt, confusion.png
and, for FDRL, intra_weights.png.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, OneCycleLR
from torchvision.models import resnet18

import fdrl_layers
from fdrl_layers import FDRLHead, FDRLLoss, FDRLLossOutput, FDRLOutput
from fer import checkpoint, engine, figures
from fer.data import Database, load_ferplus, load_rafdb, synthetic_faces
from fer.options import Command, Options, parse
from fer.ranks import Ranks, joined
from fer.summary import best_epoch, epoch_line, result_lines, summarize


def read_database(options: Options, progress: bool) -> Database:
    """Decode all faces, so that whatever is wrong with them shows before training."""
    counted = options.check_counts
    match options.dataset:
        case "rafdb":
            return load_rafdb(Path(options.data or ""), check_counts=counted, progress=progress)
        case "ferplus":
            return load_ferplus(
                Path(options.data or ""),
                labels=options.labels,
                check_counts=counted,
                progress=progress,
            )
        case _:
            return synthetic_faces(options.faces, 2 * options.faces // 5, progress=progress)


def make_model(options: Options, classes: int) -> nn.Sequential:
    """Put a head on a ResNet-18 (section 4.2), whose basic feature is 512 wide."""
    backbone = resnet18(weights=None)
    backbone.fc = nn.Identity()
    if options.head == "linear":
        return nn.Sequential(backbone, nn.Linear(512, classes))
    head = FDRLHead(
        512,
        classes,
        latent_dim=options.latent_dim,
        num_latents=options.num_latents,
        delta=options.delta,
        reduction=options.reduction,
    )
    return nn.Sequential(backbone, head)


def make_criterion(options: Options, classes: int) -> FDRLLoss:
    """Make the joint loss (equation 13), with its centers."""
    return FDRLLoss(
        classes,
        num_latents=options.num_latents,
        latent_dim=options.latent_dim,
        lambda_compactness=options.lambda_compactness,
        lambda_balance=options.lambda_balance,
        lambda_distribution=options.lambda_distribution,
        center_update=options.center_update,
    )


def losses_of(
    criterion: FDRLLoss, output: FDRLOutput | Tensor, labels: Tensor
) -> dict[str, Tensor]:
    """Return the loss to minimize as `total`, and for FDRL its terms."""
    if isinstance(output, FDRLOutput):
        losses: FDRLLossOutput = criterion(output, labels)
        return vars(losses)
    return {"total": F.cross_entropy(output, labels)}


def make_schedule(options: Options, adam: torch.optim.Adam, steps: int) -> LRScheduler:
    """Divide the rate by 10 after 10, 18, 25 and 32 epochs (section 4.2), or use one cycle."""
    if options.schedule == "steps":
        return MultiStepLR(adam, [epoch * steps for epoch in (10, 18, 25, 32)])
    # One step more than are taken, as the scheduler moves on after the last step too.
    total = options.epochs * steps + 1
    return OneCycleLR(adam, options.lr, total_steps=total, cycle_momentum=False)


class Run:
    """A training under way: what is trained, what is known of it, and where it is kept."""

    def __init__(self, options: Options, database: Database, folder: Path, ranks: Ranks) -> None:
        self.options, self.database, self.folder, self.ranks = options, database, folder, ranks
        torch.manual_seed(options.seed)
        classes = len(database.classes)
        self.model = make_model(options, classes).to(ranks.device)
        self.criterion = make_criterion(options, classes).to(ranks.device)
        parameters = [*self.model.parameters(), *self.criterion.parameters()]
        self.adam = torch.optim.Adam(parameters, lr=options.lr, betas=(0.5, 0.999))
        steps = len(database.splits["train"]) // options.batch_size
        self.schedule = make_schedule(options, self.adam, steps)
        self.history: list[dict[str, Any]] = []
        distributed = DistributedDataParallel(self.model) if ranks.world > 1 else None
        self.forward: nn.Module = distributed or self.model

    def train_epoch(self, epoch: int) -> dict[str, float]:
        """Take a step for each batch; return the epoch's mean losses and accuracy."""
        faces = self.database.splits["train"]
        sums: dict[str, Tensor] = {}
        batches = 0
        self.model.train()
        for images, labels in engine.training_batches(faces, self.options, epoch, self.ranks):
            with engine.autocast(self.options, self.ranks.device):
                output = self.forward(images)
            losses = losses_of(self.criterion, output, labels)
            self.adam.zero_grad()
            losses["total"].backward()
            self.adam.step()
            self.schedule.step()

            right = (engine.logits_of(output).argmax(1) == labels).float().mean() * 100
            for name, value in {**losses, "accuracy": right}.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach()
            batches += 1
        ranks = self.ranks.gathered({name: float(total) / batches for name, total in sums.items()})
        return {f"train_{name}": sum(rank[name] for rank in ranks) / len(ranks) for name in sums}

    def evaluate(self, split: str) -> engine.Evaluation:
        """Evaluate the model as it is now."""
        self.ranks.share_buffers(self.model)
        faces, classes = self.database.splits[split], len(self.database.classes)
        return engine.evaluate(self.model, faces, classes, self.options, self.ranks)

    def train(self) -> dict[str, Any]:
        """Train to the last epoch, keep the folder up to date, and return the summary."""
        for epoch in range(len(self.history) + 1, self.options.epochs + 1):
            started = time.perf_counter()
            row = {"epoch": epoch, "lr": self.schedule.get_last_lr()[0]} | self.train_epoch(epoch)
            for split in (name for name in self.database.splits if name != "train"):
                scores = self.evaluate(split).scores
                row[f"{split}_accuracy"] = scores.accuracy
                row[f"{split}_mean_class_accuracy"] = scores.mean_class_accuracy
            row["seconds"] = time.perf_counter() - started
            self.history.append(row)
            if self.ranks.first:
                self.keep()
                print(epoch_line(row, self.options.epochs), flush=True)
        return self.finish()

    def keep(self) -> None:
        """Write what is known after an epoch; last.pt at the end, as a run goes on from there."""
        result = {
            "version": fdrl_layers.__version__,
            "classes": list(self.database.classes),
            "options": self.options.plain(),
            "history": self.history,
            "model": self.model.state_dict(),
            "criterion": self.criterion.state_dict(),
        }
        if best_epoch(self.history) is self.history[-1]:
            checkpoint.write_checkpoint(self.folder / "best.pt", result)
        checkpoint.write_csv(self.folder / "metrics.csv", self.history)
        progress = {"adam": self.adam.state_dict(), "schedule": self.schedule.state_dict()}
        checkpoint.write_checkpoint(self.folder / "last.pt", result | progress)

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where `state` was kept."""
        for name in ("model", "criterion", "adam", "schedule"):
            getattr(self, name).load_state_dict(state[name])
        self.history = state["history"]

    def finish(self) -> dict[str, Any]:
        """Write the summary and the figures, of the last epoch on test."""
        sizes = {split: len(faces) for split, faces in self.database.splits.items()}
        summary = summarize(self.history, self.options, sizes, self.ranks.device)
        evaluation = self.evaluate("test")
        if self.ranks.first:
            name, classes, scores = self.database.name, self.database.classes, evaluation.scores
            title = f"{name}, {self.options.head} head: {scores.accuracy:.1f} % on test"
            path = self.folder / "confusion.png"
            figures.draw_confusion(scores.confusion, classes, title, path)
            if evaluation.intra_weights is not None:
                title = f"{name} test, reduction={self.options.reduction!r}"
                weights, labels = evaluation.intra_weights, evaluation.labels
                path = self.folder / "intra_weights.png"
                figures.draw_intra_weights(weights, labels, classes, title, path)
            checkpoint.write_json(self.folder / "summary.json", summary)
        return summary


def start(command: Command, ranks: Ranks) -> Run:
    """Begin a run, or go on with one."""
    options, folder = command.options, command.resume
    database = read_database(options, progress=ranks.first and sys.stderr.isatty())
    database = engine.limited(database, options)
    if ranks.first and folder is None:
        name = f"{options.dataset}-{options.head}-{options.preset}-seed{options.seed}"
        folder = checkpoint.new_folder(command.out, name)
        checkpoint.write_json(folder / "config.json", options.plain())
    run = Run(options, database, ranks.gathered(folder)[0], ranks)
    # A run that was killed in its first epoch has no checkpoint yet, and begins again.
    if (run.folder / "last.pt").is_file():
        run.restore(checkpoint.read_checkpoint(run.folder / "last.pt", ranks.device))
    if ranks.first:
        print(engine.greeting(database, options, ranks, run.folder), flush=True)
    return run


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run a command line, and return the summary."""
    command = parse(__doc__ or "", arguments)
    with joined(command.options.device) as ranks:
        try:
            run = start(command, ranks)
        except (OSError, ValueError) as error:
            sys.exit(f"error: {error}")
        summary = run.train()
        if ranks.first:
            print(f"{result_lines(summary)}\nin {run.folder}")
    return summary


if __name__ == "__main__":
    main()
