"""The tables of the studies on real faces, for the Reproduction pages."""

from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

import figure_style
from benchmarks.studies.meaning import Meaning, read_meanings
from benchmarks.studies.plan import SCALES, Study
from benchmarks.studies.questions import STUDIES
from benchmarks.studies.store import TrainedRun
from benchmarks.studies.tables import as_markdown, markdown, read_results
from study_plots import draw_plots

NOTHING = "*Not run yet.*\n"


def format_study(of: Study, folder: Path) -> str:
    """Return a study's table at every scale that has been run, and draw its plots to `folder`."""
    parts = []
    for scale, about in SCALES.items():
        found = {row.label: list(read_results(row, scale).values()) for row in of.rows}
        runs = [each for results in found.values() for each in results]
        # The baseline, which other studies have too, is no result by itself.
        if any(results for label, results in found.items() if label != of.baseline):
            # Keep a number and its deviation on one line.
            table = as_markdown(of, scale).replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")
            parts.append(f"{table}\nOf {about.description}; {_machines(runs)}\n")
            parts.append(draw_plots(of, scale, folder))
    return "\n".join(parts) or NOTHING


def _machines(runs: Iterable[TrainedRun]) -> str:
    runs = list(runs)
    where = sorted(
        {f"{run.machine.gpu or run.machine.cpu}, torch {run.machine.torch}" for run in runs}
    )
    minutes = fmean(run.seconds for run in runs) / 60
    return f"{len(runs)} runs of {minutes:.1f} minutes each on {'; '.join(where)}."


def format_meanings() -> str:
    """Return a table of what latents say about action units and labels, one row for each model."""
    found = (read_meanings(scale) for scale in SCALES)
    return "\n".join(_tabulate_meanings(measured) for measured in found if measured) or NOTHING


def _tabulate_meanings(found: list[Meaning]) -> str:
    head = ["", "information on a unit, nats", "units better than the baseline's", "groups, %"]
    lines = [head, ["---"] * len(head)]

    def mean(name: str, model: str | None = None) -> float:
        values = (getattr(each, name) for each in found)
        return fmean(each if model is None else each[model] for each in values)

    for model in found[0].groups:
        known = model in found[0].latents
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
    seeds = len(found)
    return f"{markdown(lines)}\nMean over {seeds} seed{'s' if seeds > 1 else ''}.\n"


def write(folder: Path) -> None:
    """Write tables and plots to `folder`, from which the pages include them."""
    folder = folder / "studies"
    folder.mkdir(parents=True, exist_ok=True)
    figure_style.use()
    for of in STUDIES:
        (folder / f"{of.name}.md").write_text(format_study(of, folder))
    (folder / "meaning.md").write_text(format_meanings())
