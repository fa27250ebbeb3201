"""A training run: its model, its state, and the folder in which it is stored."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import fdrl_layers
from fdrl_layers import FDRLHead, FDRLOutput
from fer.data import Database, read_database
from fer.evaluation import figures, predictions as evaluation
from fer.evaluation.relations import measure_relations
from fer.evaluation.summary import (
    describe_run,
    find_best_epoch,
    format_epoch,
    intra_spread_to_dict,
    summarize,
)
from fer.model import checkpoint
from fer.model.build import (
    compute_losses,
    get_logits,
    make_criterion,
    make_model,
    make_parameter_groups,
)
from fer.model.classification import count_classes
from fer.options import Options
from fer.training import augment, precision
from fer.training.averaging import average_weights
from fer.training.batch_norm import use_joint_batch_norm
from fer.training.batches import TrainingBatches, cache_faces, limit_faces, require_equal_parts
from fer.training.gradient_cache import backward_in_parts
from fer.training.graph import GraphedStep, find_graph_obstacle, uses_graph
from fer.training.progress import Progress, require_finite_state
from fer.training.ranks import Ranks
from fer.training.rates import make_capturable, rates_to_floats
from fer.training.stopping import Stopped, StopRequest, listen_for_signals

RESUME_STATE = ("adam", "schedule", "scaler")
"""State that is required to resume a run but not to predict."""

CHECK_EVERY = 20
"""Steps between two checks that the loss is finite, because a check blocks a GPU."""

NUM_TRACKED_FACES = 256
"""Number of faces on which the relation weights are tracked over training."""


def make_schedule(options: Options, adam: torch.optim.AdamW, steps: int) -> LRScheduler:
    """Return a schedule: rate / 10 after 10, 18, 25 and 32 epochs (section 4.2), or one cycle."""
    if options.schedule == "steps":
        return MultiStepLR(adam, [epoch * steps for epoch in (10, 18, 25, 32)])
    # One more than the number of steps, because the scheduler also advances after the last step.
    total = options.epochs * steps + 1
    return OneCycleLR(adam, options.lr, total_steps=total, cycle_momentum=False)


class Run:
    """A training run: its model, its state, and the folder in which it is stored."""

    folder: Path

    def __init__(
        self, options: Options, database: Database, ranks: Ranks, *, resumed: bool = False
    ) -> None:
        self.options, self.database, self.ranks = options, database, ranks
        require_equal_parts(options, ranks)
        torch.manual_seed(options.seed)
        classes, device = len(database.classes), ranks.device
        # The checkpoint of a resumed run contains its weights, so no initial weights are loaded.
        start = options.without_weights() if resumed else options
        self.model = make_model(start, classes).to(device)
        self.model[0].requires_grad_(not options.freeze_backbone)
        counts = count_classes(database.splits["train"].labels, classes)
        self.criterion = make_criterion(options, classes, counts).to(device)
        self.lambda_balance = self.criterion.lambda_balance
        if options.sync_batch_norm and ranks.world_size > 1:
            use_joint_batch_norm(self.model, device)
        if options.channels_last:
            self.model.to(memory_format=torch.channels_last)
        average = None if options.ema is None else get_ema_multi_avg_fn(options.ema)
        self.ema = average and AveragedModel(self.model, multi_avg_fn=average, use_buffers=True)
        if options.compile:
            self.model[0].compile()
        self.parameters = [*self.model.parameters(), *self.criterion.parameters()]
        # Without weight decay this is the paper's Adam.
        groups = make_parameter_groups(self.model, self.criterion, options.weight_decay)
        # Fused, because the loop over tensors takes longer than the backbone on small images.
        fused = device.type in ("cpu", "cuda")
        self.adam = torch.optim.AdamW(groups, options.lr, betas=(0.5, 0.999), fused=fused)
        self.scaler = precision.make_gradient_scaler(options, device)
        self.faces = cache_faces(database.splits["train"], options, ranks)
        self.graph: GraphedStep | None = None
        if uses_graph(options, ranks, self.faces.images.device):
            self.graph = GraphedStep(self)
            make_capturable(self.adam, device)
        self.steps = len(self.faces) // options.batch_size
        self.schedule = make_schedule(options, self.adam, self.steps)
        self.history: list[dict[str, Any]] = []
        self.progress = Progress()
        self.forward: nn.Module = self.model
        if ranks.world_size > 1 and options.accumulate == 1:
            self.forward = DistributedDataParallel(self.model)

    def open(self, folder: Path, *, quiet: bool = False) -> "Run":
        """Set the folder to write to, and resume from its checkpoint if there is one."""
        self.folder = folder
        if self.ranks.is_first:
            checkpoint.require_disk_space(folder, self.checkpoint_size())
        if has_checkpoint(folder):
            self.restore(checkpoint.read_checkpoint(folder / "last.pt", self.ranks.device))
        if self.ranks.is_first and not quiet:
            print(describe_run(self.database, self.options, self.ranks, folder), flush=True)
            if self.ranks.device.type == "cuda":
                print(f"steps: {self.describe_steps()}", flush=True)
        return self

    def step(self, images: Tensor, targets: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Train on a batch; return its losses and accuracy, or nothing if float16 overflowed.

        In case of an overflow, the gradient scaler skips the update and lowers its scale.
        """
        self.criterion.lambda_balance = self.lambda_balance * self.compute_balance_factor()
        scale = self.scaler.get_scale()
        values = self.update_weights(images, targets, labels)
        self.schedule.step()
        return {} if self.scaler.get_scale() < scale else values

    def update_weights(self, images: Tensor, targets: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Run the part of a step that a CUDA graph can capture."""
        self.adam.zero_grad()
        losses, output = self.backward(images, targets)
        if self.options.clip is not None:
            self.scaler.unscale_(self.adam)
            nn.utils.clip_grad_norm_(self.parameters, self.options.clip)
        self.scaler.step(self.adam)
        self.scaler.update()
        if self.ema is not None:
            average_weights(self.ema, self.model, begin=self.schedule.last_epoch == 0)
        right = (get_logits(output).argmax(1) == labels).float().mean() * 100
        return {name: value.detach() for name, value in losses.items()} | {"accuracy": right}

    def compute_balance_factor(self) -> float:
        """Return the factor of the balance loss's weight in the next step."""
        steps = self.options.balance_warmup * self.options.epochs * self.steps
        return min(1.0, self.schedule.last_epoch / steps) if steps else 1.0

    def backward(
        self, images: Tensor, targets: Tensor
    ) -> tuple[dict[str, Tensor], FDRLOutput | Tensor]:
        """Compute the gradients of a batch, at once or in parts that fit into memory."""
        if self.options.accumulate > 1:
            return backward_in_parts(self, images, targets)
        cache = self.graph is None
        with precision.autocast(self.options, self.ranks.device, cache=cache):
            output = self.forward(images)
        losses = compute_losses(self.criterion, output, targets)
        self.scaler.scale(losses["total"]).backward()
        return losses, output

    def describe_steps(self) -> str:
        """Return whether a step is one CUDA graph, and if not, why, as text."""
        if self.graph is not None:
            return "one CUDA graph each"
        images = self.faces.images.device
        reason = find_graph_obstacle(self.options, self.ranks, images) or "as --no-graph asks"
        return f"without a CUDA graph: {reason}"

    def take_steps(self, batches: TrainingBatches) -> Iterator[None]:
        """Take a step for each remaining batch and update the sums of the epoch."""
        progress = self.progress
        if self.graph is None:
            for batch in batches.iterate_from(progress.steps):
                progress.add(self.step(*batch))
                yield
            return
        self.graph.start_epoch(progress, batches.targets)
        for index, drawn in batches.draw_from(progress.steps):
            self.graph(index, drawn)
            progress.steps += 1
            yield

    def train_epoch(self, epoch: int, request: StopRequest) -> dict[str, float]:
        """Take a step for each remaining batch and return the means of the epoch."""
        self.model.train()
        # A frozen backbone keeps its batch statistics as well.
        self.model[0].train(not self.options.freeze_backbone)
        progress = self.progress
        batches = TrainingBatches(self.faces, self.options, epoch, self.ranks)
        began = time.perf_counter()
        for _ in self.take_steps(batches):
            due = progress.steps % CHECK_EVERY == 0 or progress.steps == self.steps
            stop = (
                self.ranks.max_over_ranks(request.signal)
                if due or self.ranks.can_sync_each_step
                else 0
            )
            if due or stop:
                progress.require_finite(epoch, self.ranks)
            # A request in the last step is handled after the epoch has been stored.
            if stop and progress.steps < self.steps:
                progress.seconds += time.perf_counter() - began
                progress.waited += batches.waited_seconds
                progress.average_over_ranks(self.ranks)
                require_finite_state(self.tensors(), epoch, self.ranks)
                self.save()
                raise Stopped(stop)
        progress.seconds += time.perf_counter() - began
        progress.waited += batches.waited_seconds
        require_finite_state(self.tensors(), epoch, self.ranks)
        return progress.means(self.ranks, self.options.batch_size)

    @torch.no_grad()
    def track_relations(self) -> dict[str, float]:
        """Return statistics of the current relation weights on some faces of valid, or of test."""
        splits, model = self.database.splits, self.get_evaluation_model()
        if not isinstance(model[1], FDRLHead):
            return {}
        faces = splits["valid" if "valid" in splits else "test"].images[:NUM_TRACKED_FACES]
        before = model.training
        model.eval()
        basic = [
            model[0](
                augment.crop_for_evaluation(part.to(self.ranks.device), self.options.image_size)
            )
            for part in faces.split(2 * self.options.batch_size)
        ]
        found = measure_relations(model[1], torch.cat(basic))
        model.train(before)
        return found

    def get_evaluation_model(self) -> nn.Sequential:
        """Return the model to evaluate: the current one, or the average if there is one."""
        return self.model if self.ema is None else cast(nn.Sequential, self.ema.module)

    def evaluate(self, split: str) -> evaluation.Evaluation:
        """Evaluate the current model, or the average if there is one."""
        model = self.get_evaluation_model()
        self.ranks.share_buffers(model)
        return evaluation.evaluate(model, self.database.splits[split], self.options, self.ranks)

    def train(self, quiet: bool = False) -> dict[str, Any]:
        """Train to the last epoch, update the folder after each, and return the summary."""
        with listen_for_signals() as request:
            for epoch in range(len(self.history) + 1, self.options.epochs + 1):
                if not self.progress.steps:
                    self.progress.lr = float(self.schedule.get_last_lr()[0])
                row: dict[str, Any] = {"epoch": epoch, "lr": self.progress.lr}
                row |= self.train_epoch(epoch, request)
                if self.scaler.is_enabled():
                    row["skipped_steps"] = self.progress.skipped
                began = time.perf_counter()
                for split in (name for name in self.database.splits if name != "train"):
                    scores = self.evaluate(split).scores
                    row[f"{split}_accuracy"] = scores.accuracy
                    row[f"{split}_mean_class_accuracy"] = scores.mean_class_accuracy
                row |= self.track_relations()
                row["seconds"] += time.perf_counter() - began
                self.history.append(row)
                self.progress = Progress()
                self.save()
                if self.ranks.is_first and not quiet:
                    print(format_epoch(row, self.options.epochs), flush=True)
                if stop := self.ranks.max_over_ranks(request.signal):
                    raise Stopped(stop)
        return self.finish()

    def tensors(self) -> Iterator[Tensor]:
        """Yield the tensors of a checkpoint: weights, statistics, centers and moments."""
        for module in (self.model, self.criterion, *([] if self.ema is None else [self.ema])):
            yield from module.state_dict().values()
        for moments in self.adam.state.values():
            yield from (each for each in moments.values() if isinstance(each, Tensor))

    def save(self) -> None:
        """Write the state; last.pt is written last, because a run resumes from it."""
        if not self.ranks.is_first:
            return
        result = {
            "version": fdrl_layers.__version__,
            "classes": list(self.database.classes),
            "gray": self.faces.images.shape[1] == 1,
            "faces": self.database.sizes,
            "options": self.options.to_dict(),
            "history": self.history,
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "criterion": self.criterion.state_dict(),
        }
        if self.history and not self.progress.steps:
            if find_best_epoch(self.history) is self.history[-1]:
                checkpoint.write_checkpoint(self.folder / "best.pt", result)
            checkpoint.write_csv(self.folder / "metrics.csv", self.history)
        moving = {name: rates_to_floats(getattr(self, name).state_dict()) for name in RESUME_STATE}
        moving["progress"] = self.progress.state_dict()
        checkpoint.write_checkpoint(self.folder / "last.pt", result | moving)

    def restore(self, state: dict[str, Any]) -> None:
        """Restore `state`; raise if the number of faces or the classes have changed."""
        now = {"faces": self.database.sizes, "classes": list(self.database.classes)}
        before = {name: state.get(name, value) for name, value in now.items()}
        if before != now:
            raise ValueError(f"{self.folder} was trained on {before}, and now there are {now}")
        for name in ("model", "criterion", *RESUME_STATE):
            getattr(self, name).load_state_dict(state[name])
        if self.graph is not None:
            make_capturable(self.adam, self.ranks.device)
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        self.history = state["history"]
        self.progress = Progress(**state["progress"])

    def checkpoint_size(self) -> int:
        """Return the approximate bytes of the checkpoints: two stored, one being written."""
        weights = sum(int(each.nbytes) for each in self.model.state_dict().values())
        return weights * (10 if self.ema is None else 13)

    def finish(self) -> dict[str, Any]:
        """Evaluate the last epoch on test; write and return the summary, with figures."""
        sizes, device = self.database.sizes, self.ranks.device
        summary = summarize(self.history, self.options, sizes, device)
        found = self.evaluate("test")
        spread = found.intra_spread() if self.options.intra else None
        if spread is not None:
            summary["intra_spread"] = intra_spread_to_dict(spread)
        if self.ranks.is_first:
            faces, units = self.database.splits["test"], self.database.units
            evaluation.save_evaluation(self.folder / "evaluation.pt", found, faces, units)
            figures.draw_all(self.folder, found, self.database, self.options)
            checkpoint.write_json(self.folder / "summary.json", summary)
        return summary


def has_checkpoint(folder: Path | None) -> bool:
    """Return whether a run has stored a checkpoint; a run killed before that starts over."""
    return folder is not None and (folder / "last.pt").is_file()


def build_run(options: Options, ranks: Ranks, *, resumed: bool = False) -> Run:
    """Read the faces and build the model, so that errors in either are found immediately."""
    database = read_database(options, progress=ranks.is_first and sys.stderr.isatty())
    if "all" in database.splits:
        raise ValueError(
            f"{database.name} comes without splits: give --fold, or use fer_crossval.py"
        )
    return Run(options, limit_faces(database, options), ranks, resumed=resumed)


def open_run(options: Options, folder: Path, ranks: Ranks, *, quiet: bool = False) -> Run:
    """Start the run of an existing folder, or resume it from its checkpoint."""
    return build_run(options, ranks, resumed=has_checkpoint(folder)).open(folder, quiet=quiet)
