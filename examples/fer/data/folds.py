"""Subject-independent folds: no person is in both the training and the test part of a fold."""

import warnings

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold

from fer.data.faces import Database, FaceSet


def make_subject_folds(faces: FaceSet, folds: int, seed: int) -> list[torch.Tensor]:
    """Return the indices of each fold's test faces; each face and person is in exactly one fold.

    Sizes and classes are as balanced as indivisible people allow. `seed` alone selects the folds.

    Raises:
        ValueError: the people are not known or fewer than the folds, or no class has a face for
            each fold.
    """
    if faces.subjects is None:
        raise ValueError("cross-validation needs to know who is in each face")
    people = np.array(faces.subjects)
    if not 2 <= folds <= len(set(faces.subjects)):
        raise ValueError(
            f"--folds must be from 2 to the number of people, {len(set(faces.subjects))}, "
            f"got {folds}"
        )
    labels = faces.labels.numpy()
    largest = int(np.bincount(labels).max())
    if largest < folds:
        raise ValueError(f"--folds must be at most the faces of a class, {largest}, got {folds}")
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class with fewer faces than folds is missing in some folds, which is acceptable.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        found = [torch.from_numpy(test) for _, test in splitter.split(people, labels, people)]
    if any(len(fold) == 0 for fold in found):
        raise ValueError(f"a fold of {folds} is empty; take fewer --folds or another --fold-seed")
    _assert_disjoint(found, people)
    return found


def _assert_disjoint(folds: list[torch.Tensor], people: np.ndarray) -> None:
    """Assert that no person is in two folds and each face is in exactly one fold."""
    everyone = [person for fold in folds for person in sorted(set(people[fold.numpy()]))]
    if len(everyone) != len(set(everyone)):
        raise AssertionError("a person is in two folds")
    if sorted(torch.cat(folds).tolist()) != list(range(len(people))):
        raise AssertionError("a face is not in exactly one fold")


def make_folds(database: Database, folds: int, seed: int) -> list[torch.Tensor]:
    """Return the indices of each fold's test faces in a database without splits."""
    if "all" not in database.splits:
        raise ValueError(f"{database.name} comes with a training and a test split; it has no folds")
    return make_subject_folds(database.splits["all"], folds, seed)


def select_fold(database: Database, fold: int, folds: int, seed: int) -> Database:
    """Return a database with one split as fold 1 to `folds`, with the splits train and test."""
    parts = make_folds(database, folds, seed)
    if not 1 <= fold <= folds:
        raise ValueError(f"--fold must be from 1 to {folds}, got {fold}")
    faces = database.splits["all"]
    others = torch.cat([part for i, part in enumerate(parts, 1) if i != fold]).sort().values
    splits = {"train": faces.select(others), "test": faces.select(parts[fold - 1])}
    return Database(database.name, database.classes, splits, database.units)
