"""What a study found, as a Markdown table: a line for each row, against one of them."""

from glob import escape
from pathlib import Path

from benchmarks.studies.compare import difference
from benchmarks.studies.plan import DEFAULTS, Row, Study
from benchmarks.studies.store import STUDIES, Trained, read
from fer.summary import mean_and_deviation

SCORES = {"accuracy": "test", "mean_class_accuracy": "test, mean class"}


def results_of(row: Row, scale: str, folder: Path = STUDIES) -> dict[int, Trained]:
    """Return what has been trained of a row, by seed.

    Raises:
        ValueError: if something was trained with other options than the plan has now.
    """
    found = {}
    for path in sorted((folder / scale).glob(f"{escape(row.key(scale))}-seed*.json")):
        trained = read(path)
        planned = row.settings(scale)
        for name in planned.keys() - {"data", "seed", "backbone_weights", "classes"}:
            # What the examples have learned since then was as it is by default.
            then = trained.options.get(name, DEFAULTS[name])
            if then != planned[name]:
                raise ValueError(
                    f"{path.name}: {name} was {then!r}, and the plan has {planned[name]!r}; train "
                    "it again with --again"
                )
        found[trained.seed] = trained
    return found


def scores_of(results: dict[int, Trained], split: str, score: str) -> dict[int, float]:
    """Return one score of a row's runs, by seed, where there is such a split."""
    return {
        seed: each.scores[split][score] for seed, each in results.items() if split in each.scores
    }


def as_markdown(study: Study, scale: str, folder: Path = STUDIES) -> str:
    """Return a study's table, and a line on the rows that have not been trained."""
    rows = {row.label: results_of(row, scale, folder) for row in study.rows}
    head = ["", "seeds", "valid", *SCORES.values(), f"test, against {study.against}"]
    lines = [head, ["---"] * len(head)]
    for label, results in rows.items():
        if results:
            lines.append(_line(label, results, rows[study.against], label == study.against))
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    missing = "; ".join(label for label, results in rows.items() if not results)
    return f"{table}\n\nNot run yet: {missing}.\n" if missing else f"{table}\n"


def _line(
    label: str, results: dict[int, Trained], against: dict[int, Trained], itself: bool
) -> list[str]:
    wanted = [("valid", "accuracy"), *(("test", score) for score in SCORES)]
    cells = [spread(list(scores_of(results, *each).values())) for each in wanted]
    compared = ""
    if not itself and results.keys() & against.keys():
        pair = (scores_of(each, "test", "accuracy") for each in (results, against))
        compared = str(difference(*pair))
    return [label, str(len(results)), *cells, compared]


def spread(values: list[float]) -> str:
    """Return a mean and a deviation, where there are values and several."""
    if not values:
        return ""
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.2f} ± {deviation:.2f}" if len(values) > 1 else f"{mean:.2f}"
