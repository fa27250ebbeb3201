"""The tables and plots of the studies on real faces, for the Reproduction page."""

import importlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

import figure_style
from benchmarks.studies.plan import SCALES, Study
from benchmarks.studies.store import STUDIES, Trained
from benchmarks.studies.tables import as_markdown, results_of

NAMES = (
    *("baseline", "parts", "longer", "reduction", "stages", "centers"),
    *("latents", "departures", "width", "attachment", "pretraining", "recipe"),
)
NOTHING = "*Not run yet.*\n"
FOLLOWED = {
    "intra_weight": "mean Intra-W",
    "intra_spread": "its deviation over faces",
    "distance": "distance of messages",
    "inter_weight": "mean Inter-W",
}
"""What metrics.csv follows of the relation weights."""
CURVES = ("sum, λ2 = 1", "sum, λ2 = 0", "mean, λ2 = 1", "mean, λ2 = 0", "share, λ2 = 1")


def study(name: str) -> Study:
    """Return the study of a script."""
    found: Study = importlib.import_module(f"benchmarks.studies.{name}").STUDY
    return found


def tables(of: Study) -> str:
    """Return a study's table at every scale that has been run."""
    parts = []
    for scale, about in SCALES.items():
        found = {row.label: list(results_of(row, scale).values()) for row in of.rows}
        runs = [each for results in found.values() for each in results]
        # A row that other studies have too says nothing by itself.
        if any(results for label, results in found.items() if label != of.against):
            parts.append(f"{as_markdown(of, scale)}\nOf {about.says}; {_machines(runs)}\n")
    return "\n".join(parts) or NOTHING


def _machines(runs: Iterable[Trained]) -> str:
    runs = list(runs)
    where = sorted(
        {f"{run.machine.gpu or run.machine.cpu}, torch {run.machine.torch}" for run in runs}
    )
    minutes = fmean(run.seconds for run in runs) / 60
    return f"{len(runs)} runs of {minutes:.1f} minutes each on {'; '.join(where)}."


def curves(of: Study, scale: str, file: Path) -> None:
    """Draw what Intra-W, the distances and Inter-W do over training, a line for each row."""
    figure, axes = plt.subplots(1, len(FOLLOWED), figsize=(11, 2.8))
    rows = {row.label: row for row in of.rows}
    for label in CURVES:
        runs = results_of(rows[label], scale)
        for each, (name, title) in zip(axes, FOLLOWED.items(), strict=True):
            _curve(each, runs.values(), name, label)
            each.set(title=title, xlabel="epoch", yscale="log")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(CURVES))
    figure_style.save_both(figure, file)
    plt.close(figure)


def _curve(axes: Axes, runs: Iterable[Trained], name: str, label: str) -> None:
    histories = [run.history for run in runs]
    if not histories:
        return
    values = [fmean(epoch[name] for epoch in at) for at in zip(*histories, strict=True)]
    axes.plot(range(1, len(values) + 1), values, marker="o", markersize=3, label=label)


def meaning() -> str:
    """Return what the latents say of action units and labels, a line for each model."""
    parts = []
    for scale in SCALES:
        files = sorted((STUDIES / scale).glob("meaning-*.json"))
        if files:
            parts.append(_meaning([json.loads(file.read_text()) for file in files]))
    return "\n".join(parts) or NOTHING


def _meaning(found: list[dict[str, Any]]) -> str:
    head = ["", "information on a unit, nats", "units better than the baseline's", "groups, %"]
    lines = [head, ["---"] * len(head)]

    def mean(name: str, model: str | None = None) -> float:
        return fmean(each[name] if model is None else each[name][model] for each in found)

    for model in found[0]["groups"]:
        known = model in found[0]["latents"]
        lines.append(
            [
                f"FDRL, {model}",
                f"{mean('latents', model):.3f}" if known else "",
                f"{mean('units', model):.1f}" if known else "",
                f"{100 * mean('groups', model):.0f} (chance {100 * mean('chance', model):.0f})",
            ]
        )
    lines.append(["the baseline's best feature", f"{mean('baseline'):.3f}", "", ""])
    lines.append(["latents, faces mixed up", f"{mean('shuffled'):.3f}", "", ""])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    seeds = len(found)
    return f"{table}\n\nMean over {seeds} seed{'s' if seeds > 1 else ''}.\n"


def write(folder: Path) -> None:
    """Write tables and plots to `folder`, where the page includes them."""
    folder = folder / "studies"
    folder.mkdir(parents=True, exist_ok=True)
    plt.rcdefaults()
    figure_style.use()
    for name in NAMES:
        of = study(name)
        (folder / f"{name}.md").write_text(tables(of))
    curves(study("reduction"), "cpu", folder / "curves.svg")
    (folder / "meaning.md").write_text(meaning())
