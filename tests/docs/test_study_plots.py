"""Which rows a line of a plot is of."""

import pytest

from benchmarks.studies.plan import SCALES
from benchmarks.studies.questions import find_study
from study_plots import LEVELS, Levels


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("plot", LEVELS, ids=lambda plot: plot.of)
def test_a_line_holds_every_value_and_fdrl(plot: Levels, scale: str) -> None:
    study = find_study(plot.of)
    drawn = [row for line in plot.lines for row in line.rows(study, scale).values()]
    # A value that is FDRL's own is on each line, and no line has what these options change.
    apart = {"head", "center_update", "lr", "attach"}
    levels = {row.label for row in study.rows if not apart & {*row.overrides}}
    assert {row.label for row in drawn} == levels
    for line in plot.lines:
        rows = line.rows(study, scale)
        assert list(rows) == sorted(rows)
        for value, row in rows.items():
            settings = row.settings(scale)
            assert settings[line.option] == value
            assert all(settings[name] == fixed for name, fixed in line.fixed.items())
