from typing import Any

import pytest
import torch

from fer.data import Database, read_database
from fer.training.batches import Stopwatch, TrainingBatches, cache_faces, draw_balanced, limit_faces
from fer.training.ranks import Ranks
from fer.training.run import build_run
from small_runs import ALONE, options_of

CPU = torch.device("cpu")


def database(**changes: int) -> Database:
    return read_database(options_of(**changes))


def batches(epoch: int = 1, ranks: Ranks = ALONE, **changes: Any) -> TrainingBatches:
    options = options_of(**changes)
    return TrainingBatches(database().splits["train"], options, epoch, ranks)


SAMPLER = pytest.mark.parametrize("sampler", ["shuffle", "balanced"])


@SAMPLER
def test_a_resumed_epoch_meets_the_batches_that_are_left(sampler: str) -> None:
    whole, rest = (list(batches(sampler=sampler).iterate_from(steps)) for steps in (0, 3))
    assert (len(whole), len(rest)) == (5, 2)
    for found, wanted in zip(rest, whole[3:], strict=True):
        for one, other in zip(found, wanted, strict=True):
            assert torch.equal(one, other)


@SAMPLER
def test_two_processes_split_the_batch_of_one(sampler: str) -> None:
    together = list(batches(sampler=sampler).iterate_from(0))
    ranks = [Ranks(rank, 2, CPU) for rank in range(2)]
    parts = [list(batches(ranks=each, sampler=sampler).iterate_from(0)) for each in ranks]
    for joined, first, second in zip(together, *parts, strict=True):
        for one, *halves in zip(joined, first, second, strict=True):
            assert torch.equal(one, torch.cat(halves))


def test_another_epoch_and_another_seed_have_another_order_and_other_crops() -> None:
    made = (batches(), batches(epoch=2), batches(seed=1))
    first, *others = (next(iter(each.iterate_from(0)))[0] for each in made)
    assert not any(torch.equal(first, other) for other in others)


@pytest.mark.parametrize("seed", [-(2**63), 2**64 - 1, -1])
def test_any_seed_of_a_generator_has_an_order(seed: int) -> None:
    assert len(list(batches(seed=seed).iterate_from(0))) == 5


def test_no_face_is_met_twice_in_an_epoch() -> None:
    faces = database().splits["train"]
    labels = torch.cat([labels for _, _, labels in batches().iterate_from(0)])
    assert torch.equal(labels.sort().values, faces.labels.sort().values)


def test_a_balanced_draw_shows_each_class_equally_often_and_all_of_its_faces() -> None:
    labels = torch.tensor([3] * 60 + [0] * 2 + [1] * 30)[torch.randperm(92)]
    drawn = draw_balanced(labels, 1000, torch.Generator().manual_seed(0))
    counts = torch.bincount(labels[drawn]).tolist()
    assert counts[2] == 0
    assert sorted(counts) == [0, 333, 333, 334]
    assert set(drawn.tolist()) == set(range(92))
    generators = (torch.Generator().manual_seed(seed) for seed in range(2))
    again, other = (draw_balanced(labels, 1000, each) for each in generators)
    assert torch.equal(again, drawn)
    assert not torch.equal(other, drawn)


def test_waiting_is_counted_by_a_stopwatch_that_counts_its_blocks_alone() -> None:
    made, watch = batches(), Stopwatch(CPU)
    assert made.waited_seconds == 0
    list(made.iterate_from(0))
    assert made.waited_seconds > 0
    for _ in range(2):
        with watch.measure():
            torch.ones(10).sum()
    before = watch.seconds()
    assert before > 0
    torch.ones(10).sum()
    assert watch.seconds() == before


def test_a_limit_takes_the_same_faces_whatever_the_seed() -> None:
    limited = [limit_faces(database(), options_of(limit=16, seed=seed)) for seed in range(2)]
    first, second = (each.splits["train"].names for each in limited)
    assert first == second
    assert len(set(first)) == 16


def test_faces_stay_in_memory_without_a_gpu() -> None:
    faces = database().splits["train"]
    for cache in ("auto", "ram", "device"):
        assert cache_faces(faces, options_of(cache=cache), ALONE) is faces


def test_rejects_too_few_faces() -> None:
    with pytest.raises(ValueError, match="4 training faces do not fill a batch of 8"):
        limit_faces(database(faces=4), options_of())
    with pytest.raises(ValueError, match="there are no test faces"):
        limit_faces(database(faces=2), options_of(batch_size=2))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("world", "accumulate", "match"),
    [
        (3, 1, "--batch-size must be a multiple of the 3 processes, got 8"),
        (16, 1, "--batch-size must be a multiple of the 16 processes"),
        (4, 3, "--accumulate must be at most the 2 faces that a process gets of each batch, got 3"),
    ],
)
def test_rejects_what_does_not_come_out_even(world: int, accumulate: int, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        build_run(options_of(accumulate=accumulate), Ranks(0, world, CPU))
    build_run(options_of(accumulate=2), Ranks(0, 4, CPU))
