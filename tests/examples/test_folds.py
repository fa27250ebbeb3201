"""Subject-independent folds, by the laws that make a cross-validation worth its name."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings, strategies as st

from fer.data import Database, FaceSet
from fer.data.folds import fold_of, folds_of, subject_folds
from strategies import seeds


def faces_of(people: list[str], labels: list[int]) -> FaceSet:
    """Return faces whose only pixel is their number."""
    numbers = torch.arange(len(people), dtype=torch.uint8)
    names = tuple(f"face{i}" for i in range(len(people)))
    return FaceSet(
        numbers[:, None, None, None], torch.tensor(labels), names, subjects=tuple(people)
    )


def some_faces(people: int = 12, each: int = 6) -> FaceSet:
    """Return faces of people who each show three classes equally often."""
    return faces_of(
        [f"P{person}" for person in range(people) for _ in range(each)],
        [i % 3 for _ in range(people) for i in range(each)],
    )


def lists(folds: list[torch.Tensor]) -> list[list[int]]:
    return [fold.tolist() for fold in folds]


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=2, max_size=24),
    wanted=st.integers(2, 6),
    seed=seeds(),
)
def test_law_every_face_and_every_person_is_in_one_fold(
    sizes: list[int], wanted: int, seed: int
) -> None:
    people = [f"P{person}" for person, size in enumerate(sizes) for _ in range(size)]
    classes = 1 + seed % 4
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (len(people),), generator=generator).tolist()
    wanted = min(wanted, len(sizes), max(Counter(labels).values()))
    if wanted < 2:
        return

    folds = subject_folds(faces_of(people, labels), wanted, seed)

    assert len(folds) == wanted
    assert sorted(torch.cat(folds).tolist()) == list(range(len(people)))
    at_home = [{people[i] for i in fold} for fold in lists(folds)]
    assert sum(map(len, at_home)) == len(sizes)
    lengths = [len(fold) for fold in folds]
    assert min(lengths) >= 1
    # Whole people are dealt out, so folds differ by about the largest of them.
    assert max(lengths) - min(lengths) <= 2 * max(sizes)


def test_equal_people_give_equal_folds_with_every_class() -> None:
    faces = some_faces(people=80, each=18)

    folds = subject_folds(faces, 10, seed=0)

    assert [len(fold) for fold in folds] == [144] * 10
    assert all(Counter(faces.labels[fold].tolist()) == {0: 48, 1: 48, 2: 48} for fold in folds)


def test_folds_depend_on_the_seed_alone() -> None:
    faces = some_faces()
    torch.manual_seed(1)
    first = lists(subject_folds(faces, 4, seed=0))
    torch.manual_seed(2)

    assert lists(subject_folds(faces, 4, seed=0)) == first
    others = [lists(subject_folds(faces, 4, seed=seed)) for seed in (1, 2, 3)]
    assert all(other != first for other in others)


def test_a_fold_is_the_test_split_and_all_others_the_training_split() -> None:
    faces = some_faces()
    database = Database("faces", ("a", "b", "c"), {"all": faces})
    parts = folds_of(database, 4, seed=5)

    for number, part in enumerate(parts, start=1):
        fold = fold_of(database, number, 4, seed=5)
        train, test = fold.splits["train"], fold.splits["test"]
        assert (fold.name, fold.classes, list(fold.splits)) == (
            "faces",
            ("a", "b", "c"),
            ["train", "test"],
        )
        assert test.images.flatten().tolist() == part.tolist()
        assert test.names == tuple(f"face{i}" for i in part)
        assert torch.equal(test.labels, faces.labels[part])
        assert train.images.flatten().tolist() == sorted(set(range(72)) - set(part.tolist()))
        assert train.subjects is not None
        assert test.subjects is not None
        assert not set(train.subjects) & set(test.subjects)


def test_a_class_of_fewer_faces_than_folds_is_missing_in_some() -> None:
    people = [f"P{i}" for i in range(8)]

    folds = subject_folds(faces_of(people, [0] * 7 + [1]), 4, seed=0)

    assert [len(fold) for fold in folds] == [2] * 4


@pytest.mark.parametrize("wanted", [-1, 0, 1, 13])
def test_folds_are_two_to_the_number_of_people(wanted: int) -> None:
    match = rf"--folds must be from 2 to the number of people, 12, got {wanted}"
    with pytest.raises(ValueError, match=match):
        subject_folds(some_faces(), wanted, seed=0)


def test_folds_are_at_most_the_faces_of_a_class() -> None:
    faces = faces_of(["a", "b", "c", "d"], [0, 0, 1, 2])

    with pytest.raises(ValueError, match=r"--folds must be at most the faces of a class, 2, got 3"):
        subject_folds(faces, 3, seed=0)


@pytest.mark.parametrize("fold", [-1, 0, 5])
def test_a_fold_is_one_of_them(fold: int) -> None:
    database = Database("faces", ("a", "b", "c"), {"all": some_faces()})

    with pytest.raises(ValueError, match=rf"--fold must be from 1 to 4, got {fold}"):
        fold_of(database, fold, 4, seed=0)


def test_what_cannot_be_folded_is_refused() -> None:
    faces = some_faces()
    unknown = FaceSet(faces.images, faces.labels, faces.names)
    with pytest.raises(ValueError, match="cross-validation needs to know who is in each face"):
        subject_folds(unknown, 2, seed=0)
    split = Database("rafdb", ("a", "b", "c"), {"train": faces, "test": faces})
    with pytest.raises(ValueError, match="rafdb comes with a training and a test split"):
        fold_of(split, 1, 2, seed=0)
