"""Compute accuracies with 95 % confidence intervals and the difference of a run and a baseline."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, bootstrap
from sklearn.metrics import precision_recall_fscore_support

from fer.evaluation.metrics import score
from fer.evaluation.summary import selection_split
from fer.report.folder import ReportedRun

RESAMPLES = 2000

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """A number in percent, with the ends of its 95 % confidence interval if it has one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Accuracy:
    """A row of the table of accuracies."""

    split: str
    when: str
    faces: int
    accuracy: Interval
    mean_class: Interval
    note: str


@dataclass(frozen=True)
class ClassRow:
    """The metrics of one class; undefined ones are NaN."""

    faces: int
    predicted: int
    recall: Interval
    precision: float
    f1: float


@dataclass(frozen=True)
class Comparison:
    """The comparison of a run with a baseline on the same faces.

    Attributes:
        difference: Difference of their accuracies, in percentage points.
        only_run: Number of faces that only the run classifies correctly.
        only_baseline: Number of faces that only the baseline classifies correctly.
        p: P-value of the exact McNemar test that these two numbers differ by chance alone.
    """

    difference: Interval
    only_run: int
    only_baseline: int
    p: float


def wilson_interval(right: int, count: int) -> Interval:
    """Return the share of `right` in `count`, with Wilson's interval."""
    if not count:
        return Interval(float("nan"))
    ends = binomtest(right, count).proportion_ci(method="wilson")
    return Interval(100 * right / count, 100 * float(ends.low), 100 * float(ends.high))


def mean_class_accuracy(labels: Labels, predictions: Labels) -> Interval:
    """Return the mean recall of the classes, with a bootstrap interval that resamples each class.

    The bootstrap has a fixed seed and keeps the size of every class.
    """
    return _bootstrap_mean(
        [(predictions[labels == k] == k).astype(float) for k in np.unique(labels)]
    )


def _bootstrap_mean(samples: Sequence[NDArray[np.float64]]) -> Interval:
    """Return the mean of the samples' means, with a bootstrap interval."""
    # A single face has no spread, but scipy requires two observations.
    samples = [np.repeat(each, 2) if len(each) == 1 else each for each in samples]

    def mean(*each: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        found: NDArray[np.float64] = np.mean([values.mean(axis) for values in each], axis=0)
        return found

    found = bootstrap(
        samples, mean, n_resamples=RESAMPLES, batch=200, method="percentile", random_state=0
    ).confidence_interval
    value = 100 * float(mean(*samples))
    return Interval(value, 100 * float(found.low), 100 * float(found.high))


def list_accuracies(run: ReportedRun) -> list[Accuracy]:
    """Return the accuracies on every split: first the result, then those that are not results."""
    if run.folds:
        return _accuracies_of_folds(run)
    last, best, sizes = run.summary["last"], run.summary["best"], run.summary["faces"]
    when = f"last epoch ({last['epoch']})"
    rows = [_accuracy_of_faces(run, "test", when, "the result")]
    if "valid" in sizes:
        rows.append(_accuracy_of_row(last, "valid", when, sizes, ""))
    if best["epoch"] != last["epoch"]:
        chosen = selection_split(last)
        note = f"chosen on {chosen}"
        too_good = f"{note}, and so too good: not a result"
        when_best = f"best epoch ({best['epoch']})"
        for split in ("test", "valid"):
            if split in sizes:
                remark = too_good if split == chosen else note
                rows.append(_accuracy_of_row(best, split, when_best, sizes, remark))
    seen = Interval(last["train_accuracy"])
    note = "while it learned, on augmented faces, mean of the epoch"
    rows.append(Accuracy("train", when, sizes["train"], seen, Interval(float("nan")), note))
    return rows


def _accuracy_of_faces(run: ReportedRun, split: str, when: str, note: str) -> Accuracy:
    labels, predictions = run.evaluation.labels, run.evaluation.predictions
    right = int((labels == predictions).sum())
    mean_class = mean_class_accuracy(labels, predictions)
    return Accuracy(split, when, len(labels), wilson_interval(right, len(labels)), mean_class, note)


def _accuracy_of_row(
    row: dict[str, float], split: str, when: str, sizes: dict[str, int], note: str
) -> Accuracy:
    """Return the accuracies in an epoch's row; without its faces, they cannot be resampled."""
    right = round(row[f"{split}_accuracy"] * sizes[split] / 100)
    mean_class = Interval(row[f"{split}_mean_class_accuracy"])
    return Accuracy(
        split, when, sizes[split], wilson_interval(right, sizes[split]), mean_class, note
    )


def _accuracies_of_folds(run: ReportedRun) -> list[Accuracy]:
    note = (
        "the interval takes faces for independent; as those of a person are not, it is too narrow"
    )
    epochs = f"last epoch ({run.options.epochs})"
    pooled = _accuracy_of_faces(run, f"test, {run.folds} folds pooled", epochs, note)
    means = [run.summary[name] for name in ("test_accuracy", "test_mean_class_accuracy")]
    accuracy, mean_class = (Interval(each["mean"]) for each in means)
    note = f"deviation over folds: {means[0]['deviation']:.1f} and {means[1]['deviation']:.1f}"
    over = Accuracy("test, mean over folds", epochs, pooled.faces, accuracy, mean_class, note)
    return [pooled, over]


def make_class_rows(labels: Labels, predictions: Labels, num_classes: int) -> list[ClassRow]:
    """Return the metrics of each class."""
    precision, _, f1, _ = precision_recall_fscore_support(
        labels, predictions, labels=np.arange(num_classes), zero_division=np.nan
    )
    confusion = score(labels, predictions, num_classes).confusion
    rows = []
    for k in range(num_classes):
        faces, predicted, right = confusion[k].sum(), confusion[:, k].sum(), confusion[k, k]
        recall = wilson_interval(int(right), int(faces))
        rows.append(
            ClassRow(int(faces), int(predicted), recall, 100 * precision[k], 100 * float(f1[k]))
        )
    return rows


def compare(run: ReportedRun, baseline: ReportedRun) -> Comparison:
    """Compare a run with a baseline, face by face."""
    labels = run.evaluation.labels
    ours, theirs = (
        (each.evaluation.predictions == labels).astype(float) for each in (run, baseline)
    )
    gain = ours - theirs
    only_run, only_baseline = int((gain > 0).sum()), int((gain < 0).sum())
    differing = only_run + only_baseline
    p = float(binomtest(only_run, differing).pvalue) if differing else 1.0
    return Comparison(_bootstrap_mean([gain]), only_run, only_baseline, p)
