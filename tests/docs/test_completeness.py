"""What CONTRIBUTING asks of a new database, study, layer or loss is there for all of them."""

import re
from pathlib import Path

import pytest

import fdrl_layers
from benchmarks.studies.questions import STUDIES
from fer.options import DATASETS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
OF_OTHERS = [name for name in DATASETS if name not in ("synthetic", "folder")]
"""The databases that have an owner."""
CONCEPTS = [
    name
    for name in fdrl_layers.__all__
    if getattr(getattr(fdrl_layers, name), "__module__", "").startswith(
        ("fdrl_layers.layers.", "fdrl_layers.losses.", "fdrl_layers.head.")
    )
]


def read(*pages: str) -> str:
    return "\n".join((ROOT / page).read_text() for page in pages)


@pytest.mark.parametrize("name", DATASETS)
def test_a_database_has_its_row_and_its_test(name: str) -> None:
    assert f"\n| `{name}` |" in read("docs/howto/train.md")
    assert (ROOT / f"tests/examples/test_{name}.py").is_file()
    runs = ["test_every_database", "test_fer_crossval"]
    # Drawn faces are what the scripts train on unless they are told otherwise.
    assert name == "synthetic" or f'"{name}' in read(*(f"tests/examples/{run}.py" for run in runs))


@pytest.mark.parametrize("name", OF_OTHERS)
def test_a_database_says_whose_it_is(name: str) -> None:
    def plain(text: str) -> str:
        return text.lower().replace("-", "").replace("+", "plus")

    rows = re.findall(r"^\| (.+?) \{cite:p\}", read("docs/responsible_use.md"), re.MULTILINE)
    assert any(plain(row).startswith(name) for row in rows)
    assert name in plain(read("README.md"))


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_a_study_has_its_table(study: object) -> None:
    name = getattr(study, "name", "")
    pages = read("docs/reproduction.md", "docs/reproduction_small.md")
    assert f"_generated/studies/{name}.md" in pages


@pytest.mark.parametrize("name", CONCEPTS)
def test_a_layer_or_loss_is_listed(name: str) -> None:
    assert f"\n   {name}\n" in read("docs/api/index.md")
    if not name.endswith("Output"):
        assert f"`~fdrl_layers.{name}`" in read("docs/paper_to_code.md")
