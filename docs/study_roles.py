"""Numbers of the studies in prose, taken from the results, so that none can be out of date.

    {gain}`gates: sum, Intra-W at 1 / M vs sum, gates at 1 / 2`
    {score}`full: linear; mean class`
    {meaning}`groups: FER+`

A gain is the difference to the study's baseline, or to the row after `vs`, with its interval. A
score is a mean with its deviation over seeds. Both are of the test accuracy, unless one of `valid`,
`mean class`, `spread` or `by class` follows a semicolon. The last two are of Intra-W (see the
tables of the study `living`), in percent, and a score has only its mean. A meaning is a mean over
seeds: `latents`, `groups` and `chance` of a model, or `baseline`.
"""

import re
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from docutils import nodes

from benchmarks.studies.compare import compare_scores
from benchmarks.studies.meaning import read_meanings
from benchmarks.studies.plan import SCALES, Study
from benchmarks.studies.questions import find_study
from benchmarks.studies.store import TrainedRun
from benchmarks.studies.tables import (
    class_share_percent,
    format_mean_and_deviation,
    intra_spread_percent,
    read_results,
)

ROLE_TEXT = re.compile(
    r"(?P<study>\w+): (?P<row>.+?)(?: vs (?P<other>.+?))?"
    r"(?:; (?P<score>valid|mean class|spread|by class))?"
)


def gain(text: str) -> str:
    """Return the difference of two rows, with its interval."""
    study, row, other, score = _parse(text)
    found = compare_scores(
        *(_values(study, label, score) for label in (row, other or study.baseline))
    )
    return _keep_together(str(found))


def score(text: str) -> str:
    """Return the mean of a row, with its deviation over seeds."""
    study, row, _, score = _parse(text)
    values = list(_values(study, row, score).values())
    return (
        f"{fmean(values):.0f}"
        if score in ("spread", "by class")
        else _keep_together(format_mean_and_deviation(values))
    )


def meaning(text: str) -> str:
    """Return a number of the table of what latents mean, in nats or in percent."""
    name, _, model = text.partition(": ")
    found = next(measured for scale in reversed(SCALES) if (measured := read_meanings(scale)))
    values = [getattr(each, name) for each in found]
    mean = fmean(each[model] if model else each for each in values)
    return f"{100 * mean:.0f}" if name in ("groups", "chance") else f"{mean:.2f}"


def _parse(text: str) -> tuple[Study, str, str | None, str | None]:
    match = ROLE_TEXT.fullmatch(" ".join(text.split()))
    if match is None:
        raise ValueError(f"expected a study and a row, as in `gates: FDRL`, got {text!r}")
    return find_study(match["study"]), match["row"], match["other"], match["score"]


def _values(study: Study, label: str, score: str | None) -> dict[int, float]:
    """Return a row's scores by seed, at the largest scale that has any."""
    (row,) = study.select_rows([label])
    for scale in reversed(SCALES):
        runs = read_results(row, scale)
        values = {seed: _value(run, score) for seed, run in runs.items()}
        if values and any(len(read_results(each, scale)) for each in study.rows if each != row):
            return {seed: value for seed, value in values.items() if value is not None}
    raise ValueError(f"{study.name}: {label} has not been run")


def _value(run: TrainedRun, score: str | None) -> float | None:
    if score == "spread":
        return intra_spread_percent(run)
    if score == "by class":
        return class_share_percent(run)
    if score == "mean class":
        return run.scores["test"]["mean_class_accuracy"]
    return run.scores["valid" if score == "valid" else "test"]["accuracy"]


def _keep_together(text: str) -> str:
    # Keep a number and its deviation on one line, and use a minus sign instead of a hyphen.
    return text.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}").replace(
        "-", "\N{MINUS SIGN}"
    )


def setup(app: Any) -> dict[str, bool]:
    """Add the roles."""
    for name, figure in (("gain", gain), ("score", score), ("meaning", meaning)):
        app.add_role(name, _role(figure))
    return {"parallel_read_safe": True}


def _role(figure: Any) -> Any:
    def role(
        name: str, rawtext: str, text: str, line: int, inliner: Any, *_: Any, **__: Any
    ) -> tuple[Sequence[nodes.Node], Sequence[nodes.Node]]:
        try:
            return [nodes.Text(figure(text))], []
        except (AttributeError, KeyError, StopIteration, ValueError) as error:
            reason = error if str(error) else "there is no such study"
            message = inliner.reporter.error(f"{{{name}}}`{text}`: {reason}", line=line)
            return [nodes.problematic(rawtext, rawtext)], [message]

    return role
