"""Cross-validate FDRL, or the paper's baseline, with no person in two folds (table 3a).

    python examples/fer_crossval.py --dataset ckplus --data DIR --preset paper
    python examples/fer_crossval.py --dataset folder --data DIR --classes happy,sad --folds 5
    python examples/fer_crossval.py --resume runs/NAME

All options of fer_rafdb.py are supported. The folder contains a run for each fold, which is resumed
if it was stopped, and finally folds.csv, summary.json and the pooled confusion.png.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fer.command import fill_options, make_parser
from fer.data import DATABASES, Database
from fer.data.folds import make_folds
from fer.data.table import read_all_faces
from fer.evaluation import figures, predictions as evaluation
from fer.evaluation.metrics import score
from fer.evaluation.summary import mean_and_deviation
from fer.model import checkpoint
from fer.model.build import check_weights
from fer.options import Options, load_options
from fer.training.errors import report_errors
from fer.training.ranks import Ranks, join_ranks
from fer.training.run import open_run

COLUMNS = ("test_accuracy", "test_mean_class_accuracy")


def cross_validate(options: Options, folder: Path, ranks: Ranks) -> dict[str, Any]:
    """Train on all folds that have not finished; return the summary of all folds."""
    database = read_all_faces(options)
    rows = []
    with checkpoint.lock_folder(folder, ranks.is_first):
        for fold in range(1, options.folds + 1):
            row = train_fold(replace(options, fold=fold), folder / f"fold{fold:02d}", ranks)
            rows.append(row)
            if ranks.is_first:
                result = f"{row['test_accuracy']:.2f} % of {row['faces']}"
                print(f"fold {fold:>2}/{options.folds}: {result}", flush=True)
        summary = pool_folds(options, folder, rows, database)
        if ranks.is_first:
            title = f"{options.dataset}, {options.head} head, {options.folds} folds: "
            title += f"{summary['pooled_accuracy']:.1f} %"
            confusion, path = np.array(summary["confusion"]), folder / "confusion.png"
            figures.draw_confusion(confusion, database.classes, title, path)
            checkpoint.write_csv(folder / "folds.csv", rows)
            checkpoint.write_json(folder / "summary.json", summary)
    return summary


def train_fold(options: Options, folder: Path, ranks: Ranks) -> dict[str, Any]:
    """Start or resume one fold and return the result of its last epoch."""
    if not (folder / "summary.json").is_file():
        if ranks.is_first and not (folder / "config.json").is_file():
            folder.mkdir(exist_ok=True)
            checkpoint.write_json(folder / "config.json", options.to_dict())
        ranks.gather(None)  # wait until the folder exists
        with checkpoint.lock_folder(folder, ranks.is_first):
            open_run(options, folder, ranks, quiet=True).train(quiet=True)
        ranks.gather(None)
    summary = checkpoint.read_json(folder / "summary.json")
    last = {name: summary["last"][name] for name in COLUMNS}
    return {"fold": options.fold, "faces": summary["faces"]["test"]} | last


def pool_folds(
    options: Options, folder: Path, rows: Sequence[dict[str, Any]], database: Database
) -> dict[str, Any]:
    """Return mean and deviation over folds and the scores of the faces of all folds together.

    Raises:
        ValueError: a face was not tested exactly once, e.g. if the database changed between folds.
    """
    kept = [
        evaluation.read_evaluation(folder / f"fold{row['fold']:02d}" / "evaluation.pt")
        for row in rows
    ]
    tested = sorted(name for each in kept for name in each.faces.names)
    if tested != sorted(database.splits["all"].names):
        raise ValueError(
            f"the folds in {folder} do not test each face of {options.data} once: the database is "
            "not what it was when they were trained. Begin in another folder"
        )
    classes, found = database.classes, [each.evaluation for each in kept]
    labels = np.concatenate([each.labels for each in found])
    scores = score(labels, np.concatenate([each.predictions for each in found]), len(classes))
    means = {name: mean_and_deviation([row[name] for row in rows]) for name in COLUMNS}
    return {
        "options": options.to_dict(),
        "classes": list(classes),
        "folds": list(rows),
        "faces": len(labels),
        "pooled_accuracy": scores.accuracy,
        "pooled_mean_class_accuracy": scores.mean_class_accuracy,
        "confusion": scores.confusion.tolist(),
        "printed": DATABASES[options.dataset].paper_accuracies,
    } | {name: dict(zip(("mean", "deviation"), pair, strict=True)) for name, pair in means.items()}


def format_result(summary: dict[str, Any]) -> str:
    """Return the results of all folds and the paper's numbers as text."""
    mean = summary["test_accuracy"]
    lines = [
        f"{len(summary['folds'])} folds: {mean['mean']:.2f} ± {mean['deviation']:.2f} % "
        f"(mean and deviation over folds); all {summary['faces']} faces pooled: "
        f"{summary['pooled_accuracy']:.2f} % (mean class "
        f"{summary['pooled_mean_class_accuracy']:.2f} %). Every number is of the last epoch"
    ]
    if summary["printed"] is not None:
        baseline, fdrl = summary["printed"]
        lines.append(f"the paper prints {baseline} % for its baseline and {fdrl} % for FDRL")
    return "\n".join(lines)


def _parse(arguments: Sequence[str] | None) -> tuple[Options, Path | None, Path | None]:
    datasets = [name for name, entry in DATABASES.items() if entry.is_cross_validated] + ["folder"]
    parser = make_parser(__doc__ or "", datasets)
    parser.add_argument("--resume", type=Path, metavar="DIR", help="go on with the folds in DIR")
    given = vars(parser.parse_args(arguments))
    out, resume = given.pop("out", None), given.pop("resume", None)
    if resume is not None and (given or out is not None):
        parser.error("--resume takes everything from the folder; say nothing else")
    if resume is None and "dataset" not in given:
        parser.error(f"--dataset must be one of {', '.join(datasets)}")
    try:
        options = fill_options(given) if resume is None else load_options(resume)
        if options.dataset not in datasets or options.fold is not None:
            raise ValueError("it holds a single run, which fer_rafdb.py goes on with")
        return options, out, resume
    except (OSError, ValueError, TypeError) as error:
        parser.error(f"cannot go on with {resume}: {error}" if resume else str(error))


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the command line and return the summary."""
    options, out, folder = _parse(arguments)
    with join_ranks(options.device) as ranks:
        with report_errors(ranks, lambda: f"to go on: --resume {folder}"):
            if ranks.is_first and folder is None:
                # Detect errors in faces, folds or weights before creating a folder.
                database = read_all_faces(options, progress=sys.stderr.isatty())
                make_folds(database, options.folds, options.fold_seed)
                check_weights(options)
                name = f"{options.dataset}-{options.head}-{options.preset}-seed{options.seed}-folds"
                folder = checkpoint.create_run_folder(out, name, options.to_dict())
            folder = ranks.gather(folder)[0]
            assert folder is not None
            summary = cross_validate(options, folder, ranks)
        if ranks.is_first:
            print(f"{format_result(summary)}\nin {folder}")
    return summary


if __name__ == "__main__":
    main()
