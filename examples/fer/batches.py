"""An epoch's batches: drawn for all processes together, and ready on the device that trains."""

import time
from collections.abc import Iterator

import torch
from torch import Tensor
from tqdm import tqdm

from fer import augment
from fer.data.faces import Database, FaceSet
from fer.options import Options
from fer.ranks import Ranks


def limited(database: Database, options: Options) -> Database:
    """Return the database with `--limit` training faces, the same ones whatever the seed."""
    faces = database.splits["train"]
    if options.limit is not None and options.limit < len(faces):
        drawn = torch.randperm(len(faces), generator=torch.Generator().manual_seed(0))
        faces = faces.chosen(drawn[: options.limit])
        splits = {**database.splits, "train": faces}
        database = Database(database.name, database.classes, splits, database.units)
    if len(faces) < options.batch_size:
        raise ValueError(
            f"{database.name}: {len(faces)} training faces do not fill a batch of "
            f"{options.batch_size} (--batch-size)"
        )
    return database


def cached(faces: FaceSet, options: Options, ranks: Ranks) -> FaceSet:
    """Return the faces where batches are cut from them: in memory, or on the GPU that trains."""
    if ranks.device.type != "cuda" or options.cache == "ram":
        return faces
    free, _ = torch.cuda.mem_get_info(ranks.device)
    if options.cache == "auto" and faces.images.nbytes > free / 4:
        return faces
    images, labels = faces.images.to(ranks.device), faces.labels.to(ranks.device)
    return FaceSet(images, labels, faces.names, faces.units, faces.subjects)


class TrainingBatches:
    """This process's part of each batch of an epoch, augmented, with its labels.

    Order and augmentation are drawn for the joint batch from (seed, epoch) alone. So a resumed run
    meets the faces that an undisturbed one does, and so do two processes and one. The last,
    smaller batch is left out; the order being new each epoch, no face is left out for long.

    Attributes:
        waited: Seconds that were spent in making batches.
    """

    def __init__(self, faces: FaceSet, options: Options, epoch: int, ranks: Ranks) -> None:
        self.faces, self.options, self.epoch, self.ranks = faces, options, epoch, ranks
        self.waited = 0.0

    def after(self, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Give the batches that follow the first `steps`."""
        options, count = self.options, len(self.faces)
        generator = torch.Generator().manual_seed(1_000_003 * options.seed + self.epoch)
        order = torch.randperm(count, generator=generator)
        starts = range(0, count - options.batch_size + 1, options.batch_size)
        title = f"epoch {self.epoch}/{options.epochs}"
        quiet = None if self.ranks.first else True
        for step, start in enumerate(tqdm(starts, desc=title, leave=False, disable=quiet)):
            began = time.perf_counter()
            drawn = augment.draw(options.batch_size, options.image_size, generator, options.augment)
            if step < steps:
                continue
            batch = self._batch(order[start : start + options.batch_size], drawn)
            self.waited += time.perf_counter() - began
            yield batch

    def _batch(self, chosen: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        mine, device = self.ranks.mine(len(chosen)), self.ranks.device
        index = chosen[mine].to(self.faces.images.device)
        images = self.faces.images[index].to(device, non_blocking=True)
        labels = self.faces.labels[index].to(device, non_blocking=True)
        made = augment.for_training(
            images, drawn[mine], self.options.image_size, self.options.augment
        )
        if self.options.channels_last:
            made = made.contiguous(memory_format=torch.channels_last)
        return made, labels
