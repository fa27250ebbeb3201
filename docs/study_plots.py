"""The plots of the studies on real faces, for the Reproduction pages."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

import figure_style
from benchmarks.studies.plan import Row, Study, default_settings
from benchmarks.studies.questions import LINEAR, LINEAR_AGAIN, find_study
from benchmarks.studies.store import TrainedRun
from benchmarks.studies.tables import read_results, select_scores
from fer.evaluation.summary import mean_and_deviation

TRACKED_COLUMNS = {
    "intra_weight": "mean Intra-W",
    "intra_spread": "its deviation over faces",
    "distance": "distance of messages",
    "inter_weight": "mean Inter-W",
}
"""Columns of metrics.csv about the relation weights, with their titles."""
LOG_SCALED = ("intra_weight", "intra_spread")
CURVES = ("sum, λ2 = 1", "sum, λ2 = 0", "mean, λ2 = 1", "mean, λ2 = 0", "share, λ2 = 1")


@dataclass(frozen=True)
class Line:
    """Rows of a study that differ in one option alone.

    Attributes:
        label: Their name in the legend.
        option: The option in which they differ.
        fixed: Options in which all of them differ from FDRL.
    """

    label: str
    option: str
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def rows(self, of: Study, scale: str) -> dict[Any, Row]:
        """Return the rows of a study that are on this line, by the option's value."""
        wanted = {**default_settings(scale), **self.fixed}
        found = {}
        for row in of.rows:
            settings = row.settings(scale)
            if settings == {**wanted, self.option: settings[self.option]}:
                found[settings[self.option]] = row
        return dict(sorted(found.items()))


@dataclass(frozen=True)
class Levels:
    """A plot of test accuracy over the value of an option.

    Attributes:
        of: The study's name.
        xlabel: What the values are.
        lines: The lines to compare.
        baseline: A row that is drawn as a horizontal line.
    """

    of: str
    xlabel: str
    lines: tuple[Line, ...]
    baseline: Row

    @property
    def alt(self) -> str:
        """What the plot shows, in words."""
        names = ", ".join(line.label for line in self.lines)
        return f"Test accuracy against {self.xlabel}, of {names}, beside the linear layer."


BALANCE = tuple(
    Line(each, "lambda_balance", {"reduction": each}) for each in ("sum", "mean", "share")
)
LEVELS = (
    Levels("reduction", "λ2", BALANCE, LINEAR),
    Levels("stages", "λ2", BALANCE, LINEAR_AGAIN),
    Levels(
        "centers",
        "the weight of the loss",
        (Line("λ1", "lambda_compactness"), Line("λ3", "lambda_distribution")),
        LINEAR,
    ),
    Levels("latents", "M", (Line("FDRL", "num_latents"),), LINEAR),
)


def read_accuracies(row: Row, scale: str) -> list[float]:
    """Return the test accuracies of a row, one for each seed."""
    return list(select_scores(read_results(row, scale), "test", "accuracy").values())


def draw_levels(plot: Levels, scale: str, file: Path) -> None:
    """Draw the mean and the deviation over seeds at each value, one curve for each line."""
    figure, axes = plt.subplots(figsize=(6.5, 3.2))
    lines = {}
    for line in plot.lines:
        rows = line.rows(find_study(plot.of), scale)
        lines[line.label] = {
            value: found for value, row in rows.items() if (found := read_accuracies(row, scale))
        }
    values = sorted({value for drawn in lines.values() for value in drawn})
    for number, (label, drawn) in enumerate(lines.items()):
        if not drawn:
            continue
        # Side by side, so that deviations do not cover each other.
        places = [values.index(value) + 0.08 * number for value in drawn]
        means, deviations = zip(*map(mean_and_deviation, drawn.values()), strict=True)
        axes.errorbar(places, means, deviations, marker="o", capsize=3, label=label)
    if found := read_accuracies(plot.baseline, scale):
        mean, deviation = mean_and_deviation(found)
        axes.axhline(mean, color=figure_style.BASELINE, linestyle="--", label="linear layer")
        axes.axhspan(
            mean - deviation, mean + deviation, color=figure_style.BASELINE, alpha=0.2, linewidth=0
        )
    axes.set_xticks(range(len(values)), [f"{value:g}" for value in values])
    axes.set(xlabel=plot.xlabel, ylabel="test accuracy, %")
    figure.legend(loc="outside right center")
    figure_style.save_both(figure, file)
    plt.close(figure)


def draw_curves(of: Study, scale: str, file: Path) -> None:
    """Draw Intra-W, the distances and Inter-W over training, one line for each row."""
    figure, axes = plt.subplots(1, len(TRACKED_COLUMNS), figsize=(11, 2.8))
    rows = {row.label: row for row in of.rows}
    runs = {label: read_results(rows[label], scale).values() for label in CURVES}
    for each, (name, title) in zip(axes, TRACKED_COLUMNS.items(), strict=True):
        for label, found in runs.items():
            _curve(each, found, name, label)
        each.set(title=title, xlabel="epoch")
        if name in LOG_SCALED:
            each.set_yscale("log")
        else:
            each.set_ylim(bottom=0)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(CURVES))
    figure_style.save_both(figure, file)
    plt.close(figure)


def _curve(axes: Axes, runs: Iterable[TrainedRun], name: str, label: str) -> None:
    histories = [run.history for run in runs]
    if not histories:
        return
    values = [fmean(epoch[name] for epoch in at) for at in zip(*histories, strict=True)]
    axes.plot(range(1, len(values) + 1), values, marker="o", markersize=3, label=label)


def draw_plots(of: Study, scale: str, folder: Path) -> str:
    """Draw the plots of a study to `folder`, and return the markup that shows them."""
    shown = []
    for plot in LEVELS:
        if plot.of == of.name:
            name = f"{of.name}-levels-{scale}"
            draw_levels(plot, scale, folder / f"{name}.svg")
            shown.append(_format_picture(folder, name, plot.alt))
    if of.name == "reduction":
        name = f"{of.name}-curves-{scale}"
        draw_curves(of, scale, folder / f"{name}.svg")
        titles = ", ".join(TRACKED_COLUMNS.values())
        alt = f"Over training: {titles}; a line for each reduction and weight of the balance loss."
        shown.append(_format_picture(folder, name, alt))
    return "\n".join(shown)


def _format_picture(folder: Path, name: str, alt: str) -> str:
    return "\n".join(
        f":::{{div}} figure-box only-{theme}\n"
        f"![{alt}](_generated/{folder.name}/{name}-{theme}.svg)\n:::"
        for theme in figure_style.INK
    )
