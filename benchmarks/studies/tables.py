"""Format the results of a study as Markdown tables that compare its rows with a baseline."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.studies.compare import compare_scores
from benchmarks.studies.plan import DEFAULTS, Row, Study
from benchmarks.studies.store import STUDIES, TrainedRun, load_runs
from fer.evaluation.summary import mean_and_deviation
from fer.options import LEGACY_VALUES

SCORES = {"accuracy": "test", "mean_class_accuracy": "test, mean class"}


def read_results(row: Row, scale: str, folder: Path = STUDIES) -> dict[int, TrainedRun]:
    """Return the trained runs of a row, by seed.

    Raises:
        ValueError: if a run was trained with options that differ from the current plan.
    """
    found, planned, wanted = {}, row.settings(scale), row.key(scale)
    for (key, seed), trained in sorted(load_runs(scale, folder).items()):
        if key != wanted:
            continue
        for name in planned.keys() - {"data", "seed", "backbone_weights", "classes"}:
            # Options added since then had their default value, except for LEGACY_VALUES.
            then = trained.options.get(name, LEGACY_VALUES.get(name, DEFAULTS[name]))
            if then != planned[name]:
                raise ValueError(
                    f"{key}, seed {seed}: {name} was {then!r}, and the plan has "
                    f"{planned[name]!r}; train it again with --again"
                )
        found[seed] = trained
    return found


def select_scores(results: dict[int, TrainedRun], split: str, score: str) -> dict[int, float]:
    """Return one score of the runs that have the split, by seed."""
    return {
        seed: each.scores[split][score] for seed, each in results.items() if split in each.scores
    }


def as_markdown(study: Study, scale: str, folder: Path = STUDIES) -> str:
    """Return the tables of a study and a line that lists the rows not trained yet.

    Differences whose interval excludes zero are bold.
    """
    rows = {row.label: read_results(row, scale, folder) for row in study.rows}
    # A table with the spread of Intra-W has no room for a second score.
    shown = {"accuracy": "test"} if study.relations else SCORES
    head = ["", "seeds", "valid", *shown.values(), f"test, against {study.baseline}"]
    if study.relations:
        head += ["Intra-W's spread, %", "of it by class, %"]
    lines = [head, ["---"] * len(head)]
    for label, results in rows.items():
        if results:
            itself = label == study.baseline
            line = _line(label, results, rows[study.baseline], itself, tuple(shown))
            lines.append([*line, *(_relations(results) if study.relations else ())])
    tables = [markdown(lines)]
    against = rows[study.baseline]
    for label in study.by_class:
        if rows[label].keys() & against.keys():
            tables.append(classes_as_markdown(label, rows[label], study.baseline, against))
    missing = "; ".join(label for label, results in rows.items() if not results)
    return "\n".join([*tables, f"Not run yet: {missing}.\n"] if missing else tables)


def classes_as_markdown(
    label: str, ours: dict[int, TrainedRun], against: str, theirs: dict[int, TrainedRun]
) -> str:
    """Return a table of two rows' recall of each class on test and of their differences."""
    first = next(iter(ours.values()))
    lines = [["class", "test faces", against, label, "difference"], ["---"] * 5]
    for number, name in enumerate(first.classes):
        recalls = [
            {
                seed: 100 * each.confusion[number][number] / sum(each.confusion[number])
                for seed, each in results.items()
            }
            for results in (theirs, ours)
        ]
        cells = [format_mean_and_deviation(list(each.values())) for each in recalls]
        faces = str(sum(first.confusion[number]))
        lines.append([name, faces, *cells, format_difference(recalls[1], recalls[0])])
    return markdown(lines)


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Return lines of cells as a Markdown table."""
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def format_difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> str:
    """Return the difference, in bold if its interval excludes zero."""
    found = compare_scores(ours, theirs)
    return f"**{found}**" if found.is_significant else str(found)


def _line(
    label: str,
    results: dict[int, TrainedRun],
    against: dict[int, TrainedRun],
    itself: bool,
    scores: Sequence[str],
) -> list[str]:
    wanted = [("valid", "accuracy"), *(("test", score) for score in scores)]
    cells = [
        format_mean_and_deviation(list(select_scores(results, *each).values())) for each in wanted
    ]
    found = ""
    if not itself and results.keys() & against.keys():
        found = format_difference(
            *(select_scores(each, "test", "accuracy") for each in (results, against))
        )
    return [label, str(len(results)), *cells, found]


def _relations(results: Mapping[int, TrainedRun]) -> tuple[str, str]:
    """Return how much Intra-W varies over faces and which share of its variance classes explain.

    The spread is tracked on valid faces in every run with Intra-W; the share is measured on test.
    """
    spreads = [
        found for run in results.values() if (found := intra_spread_percent(run)) is not None
    ]
    shares = [found for run in results.values() if (found := class_share_percent(run)) is not None]
    return format_mean_and_deviation(spreads), format_mean_and_deviation(shares)


def intra_spread_percent(run: TrainedRun) -> float | None:
    """Return the deviation of Intra-W over faces of valid, in percent of its mean."""
    last = run.history[-1]
    return 100 * last["intra_spread"] / last["intra_weight"] if "intra_spread" in last else None


def class_share_percent(run: TrainedRun) -> float | None:
    """Return the share of Intra-W's variance over test faces that classes explain, in percent."""
    explained = None if run.intra_spread is None else run.intra_spread["explained"]
    return None if explained is None else 100 * float(explained)


def format_mean_and_deviation(values: list[float]) -> str:
    """Return the mean, and the deviation of several values; empty if there are no values."""
    if not values:
        return ""
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.2f} ± {deviation:.2f}" if len(values) > 1 else f"{mean:.2f}"
