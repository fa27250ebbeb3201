import numpy as np
import pytest

from fer.evaluation.metrics import score


def test_scores_of_a_small_table() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    predictions = np.array([0, 0, 1, 1, 0, 2])
    scores = score(labels, predictions, 4)
    assert scores.accuracy == pytest.approx(100 * 4 / 6)
    # Class 3 does not occur and is not counted: (2/3 + 1/2 + 1) / 3.
    assert scores.mean_class_accuracy == pytest.approx(100 * (2 / 3 + 1 / 2 + 1) / 3)
    assert scores.confusion.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    # A class that is only predicted lowers the others alone.
    scores = score(np.array([0, 0, 1]), np.array([0, 2, 1]), 3)
    assert scores.mean_class_accuracy == pytest.approx(75)
