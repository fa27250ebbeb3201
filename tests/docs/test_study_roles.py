"""Figures in the prose of the Reproduction pages come from the results, and from nowhere else.

And lines of their plots hold the rows that they should.
"""

import re
from pathlib import Path

import pytest

pytest.importorskip("docutils", reason="needs what the documentation is built with")

from benchmarks.studies.compare import compare_scores
from benchmarks.studies.plan import SCALES
from benchmarks.studies.questions import find_study
from benchmarks.studies.tables import as_markdown, read_results, select_scores
from study_plots import LEVELS, Levels
from study_roles import gain, meaning, score

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "docs" / name for name in ("reproduction.md", "reproduction_small.md")]
# Sizes and settings, which are no results.
SETTINGS = {"0.01", "25,045", "3,191", "3,137", "12,800", "95"}


def prose_of(path: Path) -> str:
    """Return a page without code, tables that are included, roles and formulas."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    text = re.sub(r"\{\w+(:\w+)?\}`[^`]*`|`[^`]*`", "", text)
    return re.sub(r"\$[^$]*\$", "", text)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_no_figure_is_written_by_hand(path: Path) -> None:
    found = set(re.findall(r"\d+(?:[.,]\d+)+|±|\d+(?= (?:%|points))", prose_of(path)))
    assert found <= SETTINGS


def test_the_page_is_short() -> None:
    assert len(prose_of(PAGES[0]).split()) < 1200


def test_a_gain_is_that_of_the_table() -> None:
    rows = {row.label: row for row in find_study("baseline").select_rows(["linear", "FDRL"])}
    ours, theirs = (
        select_scores(read_results(rows[name], "cpu"), "test", "accuracy")
        for name in ("FDRL", "linear")
    )
    want = str(compare_scores(ours, theirs)).replace("-", "\N{MINUS SIGN}")
    assert gain("baseline: FDRL").replace("\N{NO-BREAK SPACE}", " ") == want
    assert gain("baseline: FDRL vs linear") == gain("baseline: FDRL")
    assert gain("baseline: linear vs FDRL").startswith("+")
    shown = as_markdown(find_study("baseline"), "cpu")
    assert score("baseline: FDRL").replace("\N{NO-BREAK SPACE}", " ") in shown
    assert gain("baseline: FDRL; valid") != gain("baseline: FDRL")
    assert 0 < float(score("living: FDRL; spread")) < 10
    assert float(meaning("latents: drawn")) < float(meaning("baseline"))
    assert 0 < float(meaning("groups: FER+")) < 100


def test_the_readme_claims_what_was_measured() -> None:
    claimed = gain("full: FDRL").replace("\N{NO-BREAK SPACE}", " ")
    assert f"level with a linear layer ({claimed} points" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("baseline", "expected a study and a row"),
        ("baseline: FDLR", "must be of: linear"),
        ("full: FDRL; by class", "has not been run|mean requires"),
    ],
)
def test_what_has_no_results_is_an_error(text: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        score(text)
    with pytest.raises(StopIteration):
        score("basseline: FDRL")


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
