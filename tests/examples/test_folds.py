"""Subject-independent folds, by the laws that make a cross-validation worth its name."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings, strategies as st

from fer.data import Database, FaceSet
from fer.data.folds import make_folds, make_subject_folds, select_fold
from strategies import seeds


def faces_of(people: list[str], labels: list[int]) -> FaceSet:
    """Return faces whose only pixel is their number."""
    pixels = torch.arange(len(people), dtype=torch.uint8)[:, None, None, None]
    names = tuple(f"face{i}" for i in range(len(people)))
    return FaceSet(pixels, torch.tensor(labels), names, subjects=tuple(people))


def some_faces(people: int = 12, each: int = 6) -> FaceSet:
    """Return faces of people who each show three classes equally often."""
    numbers = [divmod(i, each) for i in range(people * each)]
    return faces_of([f"P{person}" for person, _ in numbers], [i % 3 for _, i in numbers])


DATABASE = Database("faces", ("a", "b", "c"), {"all": some_faces()})


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=2, max_size=24),
    wanted=st.integers(2, 6),
    seed=seeds(),
)
def test_law_faces_and_people_are_in_one_fold_each(
    sizes: list[int], wanted: int, seed: int
) -> None:
    people = [f"P{person}" for person, size in enumerate(sizes) for _ in range(size)]
    classes = 1 + seed % 4
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (len(people),), generator=generator).tolist()
    wanted = min(wanted, len(sizes), max(Counter(labels).values()))
    if wanted < 2:
        return
    folds = make_subject_folds(faces_of(people, labels), wanted, seed)
    assert len(folds) == wanted
    assert sorted(torch.cat(folds).tolist()) == list(range(len(people)))
    assert sum(len({people[i] for i in fold}) for fold in folds) == len(sizes)
    lengths = [len(fold) for fold in folds]
    assert min(lengths) >= 1
    # Whole people are dealt out, so folds differ by about the largest of them.
    assert max(lengths) - min(lengths) <= 2 * max(sizes)


def test_folds_are_balanced_as_far_as_there_are_faces_of_a_class() -> None:
    faces = some_faces(people=80, each=18)
    folds = make_subject_folds(faces, 10, seed=0)
    assert [len(fold) for fold in folds] == [144] * 10
    assert all(Counter(faces.labels[fold].tolist()) == {0: 48, 1: 48, 2: 48} for fold in folds)
    # A class of fewer faces than folds is missing in some.
    few = faces_of([f"P{i}" for i in range(8)], [0] * 7 + [1])
    assert [len(fold) for fold in make_subject_folds(few, 4, seed=0)] == [2] * 4


def test_folds_depend_on_the_seed_alone() -> None:
    def found(seed: int) -> list[list[int]]:
        return [fold.tolist() for fold in make_subject_folds(some_faces(), 4, seed)]

    torch.manual_seed(1)
    first = found(0)
    torch.manual_seed(2)
    assert found(0) == first
    assert all(found(seed) != first for seed in (1, 2, 3))


def test_a_fold_is_the_test_split_and_all_others_the_training_split() -> None:
    faces = DATABASE.splits["all"]
    for number, part in enumerate(make_folds(DATABASE, 4, seed=5), start=1):
        fold = select_fold(DATABASE, number, 4, seed=5)
        train, test = fold.splits["train"], fold.splits["test"]
        assert (fold.name, fold.classes) == ("faces", ("a", "b", "c"))
        assert list(fold.splits) == ["train", "test"]
        assert test.images.flatten().tolist() == part.tolist()
        assert test.names == tuple(f"face{i}" for i in part)
        assert torch.equal(test.labels, faces.labels[part])
        assert train.images.flatten().tolist() == sorted(set(range(72)) - set(part.tolist()))
        assert train.subjects is not None
        assert test.subjects is not None
        assert not set(train.subjects) & set(test.subjects)


def test_faces_that_cannot_be_folded_are_refused() -> None:
    faces, people = some_faces(), "--folds must be from 2 to the number of people, 12, got"
    classes = "--folds must be at most the faces of a class, 2, got 3"
    for refused, folds, match in (
        *((faces, folds, f"{people} {folds}") for folds in (-1, 0, 1, 13)),
        (faces_of(list("abcd"), [0, 0, 1, 2]), 3, classes),
        (replace(faces, subjects=None), 2, "cross-validation needs to know who is in each face"),
    ):
        with pytest.raises(ValueError, match=match):
            make_subject_folds(refused, folds, seed=0)


def test_a_fold_is_one_of_those_of_a_database_without_splits() -> None:
    for fold in (-1, 0, 5):
        with pytest.raises(ValueError, match=rf"--fold must be from 1 to 4, got {fold}"):
            select_fold(DATABASE, fold, 4, seed=0)
    split = replace(DATABASE, name="rafdb", splits=dict.fromkeys(("train", "test"), some_faces()))
    with pytest.raises(ValueError, match="rafdb comes with a training and a test split"):
        select_fold(split, 1, 2, seed=0)
