"""The batches of an epoch, drawn for all processes together and moved to the training device."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor
from tqdm import tqdm

from fer.data.faces import Database, FaceSet
from fer.data.votes import make_training_targets
from fer.options import Options
from fer.training import augment
from fer.training.ranks import Ranks


def limit_faces(database: Database, options: Options) -> Database:
    """Return the database with `--limit` training faces, which do not depend on the seed."""
    faces = database.splits["train"]
    if options.limit is not None and options.limit < len(faces):
        drawn = torch.randperm(len(faces), generator=torch.Generator().manual_seed(0))
        faces = faces.select(drawn[: options.limit])
        splits = {**database.splits, "train": faces}
        database = Database(database.name, database.classes, splits, database.units)
    if not len(database.splits["test"]):
        raise ValueError(f"{database.name}: there are no test faces")
    if len(faces) < options.batch_size:
        raise ValueError(
            f"{database.name}: {len(faces)} training faces do not fill a batch of "
            f"{options.batch_size} (--batch-size)"
        )
    return database


def require_equal_parts(options: Options, ranks: Ranks) -> None:
    """Raise unless all processes get parts of equal size, which means of means require."""
    share, rest = divmod(options.batch_size, ranks.world_size)
    if rest or not share:
        raise ValueError(
            f"--batch-size must be a multiple of the {ranks.world_size} processes, "
            f"got {options.batch_size}"
        )
    if options.accumulate > share:
        raise ValueError(
            f"--accumulate must be at most the {share} faces that a process gets of each batch, "
            f"got {options.accumulate}"
        )


def cache_faces(faces: FaceSet, options: Options, ranks: Ranks) -> FaceSet:
    """Return the faces in memory or, if they fit and `cache` allows, on the training GPU."""
    if ranks.device.type != "cuda" or options.cache == "ram":
        return faces
    free, _ = torch.cuda.mem_get_info(ranks.device)
    if options.cache == "auto" and faces.images.nbytes > free / 4:
        return faces
    shares = None if faces.shares is None else faces.shares.to(ranks.device)
    images, labels = faces.images.to(ranks.device), faces.labels.to(ranks.device)
    return replace(faces, images=images, labels=labels, shares=shares)


class Stopwatch:
    """Measure how long the work in `measure` blocks keeps a device from training.

    A GPU runs asynchronously. There, the time is that between two events in its stream, which is
    short if the batch was copied and augmented while the GPU was busy.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds = 0.0
        self._marks: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Add the time of a block."""
        if self._device.type != "cuda":
            began = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - began
            return
        queue = torch.cuda.current_stream(self._device)
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record(queue)
        yield
        last.record(queue)
        self._marks.append((first, last))

    def seconds(self) -> float:
        """Return the total time; waits for the device."""
        for first, last in self._marks:
            last.synchronize()
            self._seconds += first.elapsed_time(last) / 1000
        self._marks.clear()
        return self._seconds


class TrainingBatches:
    """This process's part of each batch of an epoch, augmented, with its targets and labels.

    Order, augmentation and drawn votes are drawn for the joint batch and depend only on (seed,
    epoch). A resumed run therefore uses the same faces as an uninterrupted run, and any number of
    processes uses the same faces. The last, smaller batch is dropped; since the order changes each
    epoch, it consists of different faces.

    Attributes:
        targets: Training target of each face of the split in this epoch: its label (n,), or its
            shares of votes (n, K).
    """

    def __init__(self, faces: FaceSet, options: Options, epoch: int, ranks: Ranks) -> None:
        self.faces, self.options, self.epoch, self.ranks = faces, options, epoch, ranks
        # A large seed would exceed the range of generators.
        self.seed = (1_000_003 * options.seed + epoch) % 2**64
        self.targets = make_training_targets(faces, options.targets, self.seed)
        self._stopwatch = Stopwatch(ranks.device)

    @property
    def waited_seconds(self) -> float:
        """Seconds for which the training waited for batches."""
        return self._stopwatch.seconds()

    def iterate_from(self, steps: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield the batches of images, targets and labels after the first `steps` batches."""
        for index, drawn in self.draw_from(steps):
            with self._stopwatch.measure():
                batch = make_batch(
                    self.faces, self.targets, self.options, self.ranks.device, index, drawn
                )
            yield batch

    def draw_from(self, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield, for the same batches, the indices of the faces and the augmentations drawn."""
        options, count = self.options, len(self.faces)
        generator = torch.Generator().manual_seed(self.seed)
        if options.sampler == "balanced":
            order = draw_balanced(self.faces.labels, count, generator)
        else:
            order = torch.randperm(count, generator=generator)
        starts = range(0, count - options.batch_size + 1, options.batch_size)
        title = f"epoch {self.epoch}/{options.epochs}"
        quiet = None if self.ranks.is_first else True
        for step, start in enumerate(tqdm(starts, desc=title, leave=False, disable=quiet)):
            with self._stopwatch.measure():
                drawn = augment.draw_augmentations(
                    options.batch_size, options.image_size, generator, options.augment
                )
                if step < steps:
                    continue
                chosen = order[start : start + options.batch_size]
                mine = self.ranks.local_slice(len(chosen))
            yield chosen[mine], drawn[mine]


def draw_balanced(labels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw `count` faces such that the counts of non-empty classes differ by at most one.

    Faces of a class are drawn with replacement, so faces of a rare class occur often per epoch.
    """
    by_class = labels.cpu().argsort(stable=True)
    sizes = torch.bincount(labels.cpu())
    classes = sizes.nonzero().squeeze(1)
    # If `count` is not a multiple, the classes with one more face are drawn too.
    classes = classes[torch.randperm(len(classes), generator=generator)]
    drawn = classes.repeat(-(-count // len(classes)))[:count]
    drawn = drawn[torch.randperm(count, generator=generator)]
    within = torch.rand(count, generator=generator, dtype=torch.float64) * sizes[drawn]
    return by_class[(sizes.cumsum(0) - sizes)[drawn] + within.long()]


def make_batch(
    faces: FaceSet,
    targets: Tensor,
    options: Options,
    device: torch.device,
    index: Tensor,
    drawn: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return augmented faces, their training targets and their labels on the training device."""
    index = index.to(faces.images.device)
    images, wanted, labels = (
        every[index].to(device, non_blocking=True)
        for every in (faces.images, targets, faces.labels)
    )
    made = augment.augment_for_training(images, drawn, options.image_size, options.augment)
    if options.channels_last:
        made = made.contiguous(memory_format=torch.channels_last)
    return made, wanted, labels
