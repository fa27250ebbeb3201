"""Compute accuracy, mean class accuracy and the confusion matrix of predictions."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, confusion_matrix, recall_score


@dataclass(frozen=True, eq=False)
class Scores:
    """Metrics of predictions; shares are in percent.

    Attributes:
        accuracy: Share of the samples that are correct.
        mean_class_accuracy: Mean of the recalls of the classes that occur.
        confusion: Counts (K, K), true class by predicted class.
    """

    accuracy: float
    mean_class_accuracy: float
    confusion: NDArray[np.int64]


def score(labels: NDArray[np.int64], predictions: NDArray[np.int64], num_classes: int) -> Scores:
    """Compute the metrics of predictions for labels."""
    recall = recall_score(labels, predictions, labels=np.unique(labels), average="macro")
    return Scores(
        accuracy=100 * float(accuracy_score(labels, predictions)),
        mean_class_accuracy=100 * float(recall),
        confusion=confusion_matrix(labels, predictions, labels=np.arange(num_classes)),
    )
