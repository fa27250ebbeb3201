"""Accuracy, mean class accuracy and the confusion matrix of predictions."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, confusion_matrix, recall_score


@dataclass(frozen=True, eq=False)
class Scores:
    """How predictions compare with labels, in percent where it is a share.

    Attributes:
        accuracy: Share of the samples that are right.
        mean_class_accuracy: Mean over the classes that occur of the share that is right.
        confusion: Counts (K, K), true class by predicted class.
    """

    accuracy: float
    mean_class_accuracy: float
    confusion: NDArray[np.int64]


def score(labels: NDArray[np.int64], predictions: NDArray[np.int64], num_classes: int) -> Scores:
    """Hold predictions against labels."""
    recall = recall_score(labels, predictions, labels=np.unique(labels), average="macro")
    return Scores(
        accuracy=100 * float(accuracy_score(labels, predictions)),
        mean_class_accuracy=100 * float(recall),
        confusion=confusion_matrix(labels, predictions, labels=np.arange(num_classes)),
    )
