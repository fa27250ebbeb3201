"""Repeat a table or figure of the paper's ablation studies with several seeds.

    python examples/fer_ablation.py table2                                  # synthetic faces
    python examples/fer_ablation.py table1a --dataset rafdb --data DIR --preset paper --seeds 3
    python examples/fer_ablation.py figure4 --dataset mmi --data DIR --preset paper

All options of fer_rafdb.py are supported except those that a table varies. Each cell of the grid is
a run, or a cross-validation if the database has no splits, in its own folder. The same command
resumes a stopped table. The result is table.md: the accuracy on test after the last epoch, mean and
deviation over seeds, next to the paper's numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fer.command import fill_options, make_parser
from fer.data.table import read_all_faces
from fer.evaluation import figures
from fer.evaluation.summary import mean_and_deviation
from fer.model import checkpoint
from fer.model.build import check_weights
from fer.options import Options
from fer.rows import Row
from fer.training.errors import report_errors
from fer.training.progress import Diverged
from fer.training.ranks import Ranks, join_ranks
from fer.training.run import open_run
from fer_crossval import cross_validate


@dataclass(frozen=True)
class PaperRow(Row):
    """A row with the paper's accuracies by database."""

    paper_accuracies: Mapping[str, float] = field(default_factory=dict)


def _make_lambda_rows(
    name: str, values: Sequence[float], mmi: str, rafdb: str
) -> tuple[PaperRow, ...]:
    printed = zip(mmi.split(), rafdb.split(), strict=True)
    return tuple(
        PaperRow(f"{value:g}", {name: value}, {"mmi": float(a), "rafdb": float(b)})
        for value, (a, b) in zip(values, printed, strict=True)
    )


def _make_part_row(label: str, mmi: float, rafdb: float, **overrides: Any) -> PaperRow:
    return PaperRow(label, overrides, {"mmi": mmi, "rafdb": rafdb})


CENTER_LOSS_WEIGHTS = (0.0, 1e-5, 1e-4, 1e-3, 1e-2)
TABLES: Mapping[str, tuple[str, tuple[PaperRow, ...]]] = {
    "table1a": (
        "λ1 (compactness)",
        _make_lambda_rows(
            "lambda_compactness", CENTER_LOSS_WEIGHTS, "84.64 85.02 85.23 82.67 82.24",
            "88.75 89.02 89.47 88.82 88.63",
        ),
    ),
    "table1b": (
        "λ2 (balance)",
        _make_lambda_rows(
            "lambda_balance", (0.0, 0.5, 1.0, 1.5, 2.0), "82.66 83.68 85.23 84.94 83.23",
            "88.23 88.89 89.47 88.92 88.63",
        ),
    ),
    "table1c": (
        "λ3 (distribution)",
        _make_lambda_rows(
            "lambda_distribution", CENTER_LOSS_WEIGHTS, "84.96 85.07 85.23 82.66 81.64",
            "89.15 88.89 89.47 88.95 88.49",
        ),
    ),
    "table2": (
        "parts",
        (
            _make_part_row("backbone", 79.69, 86.93, head="linear"),
            _make_part_row("+ FDN", 81.23, 87.71, intra=False, inter=False),
            _make_part_row("+ FDN + Inter-RM", 83.44, 88.76, intra=False, inter=True),
            _make_part_row("+ FDN + Intra-RM", 84.74, 89.34, intra=True, inter=False),
            _make_part_row("all", 85.23, 89.47, intra=True, inter=True),
        ),
    ),
    # The figure has no numbers; that of nine latents is from the tables.
    "figure4": (
        "M (latents)",
        tuple(
            PaperRow(f"{m}", {"num_latents": m}, {"mmi": 85.23, "rafdb": 89.47} if m == 9 else {})
            for m in (1, 3, 5, 7, 9, 11, 13)
        ),
    ),
}  # fmt: skip


FIXED_OPTIONS = frozenset(("head", "intra", "inter"))
"""Options that no command may set: each table either varies the parts of FDRL or uses all."""


def run_cell(options: Options, folder: Path, ranks: Ranks) -> float:
    """Start or resume one run of the grid and return its accuracy on test."""
    is_cross_validated = "all" in read_all_faces(options).splits
    if not (folder / "summary.json").is_file():
        if ranks.is_first and not (folder / "config.json").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            checkpoint.write_json(folder / "config.json", options.to_dict())
        ranks.gather(None)  # wait until the folder exists
        if is_cross_validated:
            cross_validate(options, folder, ranks)
        else:
            with checkpoint.lock_folder(folder, ranks.is_first):
                open_run(options, folder, ranks, quiet=True).train(quiet=True)
        ranks.gather(None)
    summary = checkpoint.read_json(folder / "summary.json")
    found = (
        summary["test_accuracy"]["mean"] if is_cross_validated else summary["last"]["test_accuracy"]
    )
    return float(found)


def run_table(
    name: str, options: Options, seeds: int, folder: Path, ranks: Ranks
) -> list[dict[str, Any]]:
    """Run a table row by row and return the measurements."""
    rows = []
    for row in TABLES[name][1]:
        cells = []
        for seed in range(options.seed, options.seed + seeds):
            place = folder / row.label.replace(" ", "") / f"seed{seed}"
            try:
                cells.append(run_cell(replace(options, **row.overrides, seed=seed), place, ranks))
            except Diverged as error:
                error.args = (f"{name}, {row.label}, seed {seed}: {error}",)
                raise
            if ranks.is_first:
                print(f"{name}, {row.label}, seed {seed}: {cells[-1]:.2f} %", flush=True)
        mean, deviation = mean_and_deviation(cells)
        printed = row.paper_accuracies.get(options.dataset)
        rows.append(
            {"row": row.label, "accuracies": cells, "mean": mean, "deviation": deviation}
            | {"printed": printed}
        )
    return rows


def format_table(name: str, rows: Sequence[Mapping[str, Any]], options: Options) -> str:
    """Return the table as Markdown."""
    seeds = len(rows[0]["accuracies"])
    of = "seed" if seeds == 1 else "seeds, mean ± deviation"
    printed = any(row["printed"] is not None for row in rows)
    head = [TABLES[name][0], f"test accuracy, % ({seeds} {of})"] + ["printed"] * printed
    lines = [head, ["---"] * len(head)]
    for row in rows:
        spread = f" ± {row['deviation']:.2f}" if seeds > 1 else ""
        cells = [row["row"], f"{row['mean']:.2f}{spread}"]
        known = "-" if row["printed"] is None else f"{row['printed']:.2f}"
        lines.append(cells + [known] * printed)
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    recipe = f"{options.epochs} epochs, {options.image_size} pixels, reduction {options.reduction}"
    return f"{name} on {options.dataset}, preset {options.preset}: {recipe}\n\n{table}\n"


def draw_table(name: str, rows: Sequence[Mapping[str, Any]], options: Options, path: Path) -> None:
    """Draw the rows, as figure 4 does for the number of latents."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(rows))
    means, deviations = [row["mean"] for row in rows], [row["deviation"] for row in rows]
    axes.errorbar(places, means, deviations, fmt="o-", capsize=3, label="measured")
    known = [(i, row["printed"]) for i, row in enumerate(rows) if row["printed"] is not None]
    if known:
        axes.plot(*zip(*known, strict=True), "s", fillstyle="none", label="printed")
        axes.legend(frameon=False)
    axes.set_xticks(places, [row["row"] for row in rows])
    axes.set_xlabel(TABLES[name][0])
    axes.set_ylabel(f"accuracy on {options.dataset} test (%)")
    axes.grid(alpha=0.3)
    figures.save(figure, path)


def create_or_check_folder(name: str, options: Options, folder: Path) -> None:
    """Create a table's folder, or raise unless it was created for the same table and options."""
    path = folder / "grid.json"
    now = {"table": name} | options.to_dict()
    if not path.is_file():
        # A process killed during the first write leaves only a partial file.
        if folder.exists() and any(each.suffix != ".part" for each in folder.iterdir()):
            raise ValueError(f"{folder} exists and holds no table; name another folder with --out")
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint.write_json(path, now)
    before = checkpoint.read_json(path)
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if old != new:
            raise ValueError(
                f"{folder} was begun with {key} = {old!r}, and now it is {new!r}; give "
                "the same options to go on, or another folder with --out"
            )


def _parse(arguments: Sequence[str] | None) -> tuple[str, Options, int, Path]:
    parser = make_parser(__doc__ or "")
    parser.add_argument("table", choices=tuple(TABLES))
    parser.add_argument("--seeds", type=int, metavar="N", default=3, help="runs of each row")
    given = vars(parser.parse_args(arguments))
    name, seeds, out = given.pop("table"), given.pop("seeds"), given.pop("out", None)
    if seeds < 1:
        parser.error(f"--seeds must be at least 1, got {seeds}")
    decided = FIXED_OPTIONS.union(*(row.overrides for row in TABLES[name][1]))
    if taken := sorted(decided & given.keys()):
        parser.error(f"{name} decides {', '.join(taken)}; do not give it")
    try:
        options = fill_options(given)
    except ValueError as error:
        parser.error(str(error))
    return name, options, seeds, out or Path("runs") / f"{name}-{options.dataset}-{options.preset}"


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run the command line and return the rows of the table."""
    name, options, seeds, folder = _parse(arguments)
    with join_ranks(options.device) as ranks:
        with report_errors(ranks, lambda: "the same command goes on"):
            if ranks.is_first:
                check_weights(options)
                create_or_check_folder(name, options, folder)
            rows = run_table(name, options, seeds, folder, ranks)
        if ranks.is_first:
            text = format_table(name, rows, options)
            checkpoint.write_atomically(folder / "table.md", text.encode())
            checkpoint.write_json(folder / "table.json", {"table": name, "rows": rows})
            draw_table(name, rows, options, folder / "table.png")
            print(f"\n{text}\nin {folder}")
    return rows


if __name__ == "__main__":
    main()
