import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ziamath", reason="needs what the documentation is built with")
pytest.importorskip("sphinx", reason="needs what the documentation is built with")

from self_contained import find_external_addresses, find_external_loads

CDN = "https://cdn.example.org/x"
DOCS = Path(__file__).resolve().parents[2] / "docs"

CONF = f"""
import sys
sys.path.insert(0, {str(DOCS)!r})
extensions = ["drawn_math", "self_contained"]
html_math_renderer = "drawn"
html_theme = "basic"
"""

PAGE = r"""
Title
=====

Inline :math:`x_j`, and :eq:`one` by its number.

.. math::
   :label: one

   a &= b \\
   c &= d

.. math:: \mathcal L \tag{13}
"""


def build(folder: Path, page: str) -> tuple[int, str, str]:
    """Build a project of one page; return the exit status, the page and what was said."""
    source, made = folder / "source", folder / "made"
    source.mkdir()
    (source / "conf.py").write_text(CONF)
    (source / "index.rst").write_text(page)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*command, str(source), str(made)], capture_output=True, text=True, check=False
    )
    index = made / "index.html"
    return done.returncode, index.read_text() if index.is_file() else "", done.stderr


def test_formulas_are_drawn_and_numbered(tmp_path: Path) -> None:
    status, page, said = build(tmp_path, PAGE)
    assert (status, said) == (0, "")
    assert page.count('role="img"') == 3
    assert r'aria-label="a &amp;= b \\ c &amp;= d"' in page
    assert 'href="#equation-one"' in page
    assert '<span class="eqno">(13)</span>' in page
    assert "mathjax" not in page.lower()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (".. math:: \\unheardof x", ["index.rst:", "cannot draw"]),
        (
            f'.. raw:: html\n\n   <script src="{CDN}"></script>',
            [f"index.html loads {CDN}"],
        ),
    ],
    ids=["cannot be drawn", "loads from elsewhere"],
)
def test_what_is_wrong_fails_the_build(wrong: str, words: list[str], tmp_path: Path) -> None:
    status, _, said = build(tmp_path, f"{PAGE}\n{wrong}\n")
    assert status != 0
    assert all(word in said for word in words)


@pytest.mark.parametrize(
    "page",
    [
        f'<script src="{CDN}"></script>',
        f'<script type="module">import x from "{CDN}"</script>',
        f'<link rel="stylesheet" href="{CDN}">',
        f'<link rel="preload stylesheet" href="{CDN}">',
        f'<img alt="" src="{CDN}">',
        f'<img alt="" src="{CDN.removeprefix("https:")}">',
        f'<iframe src="{CDN}"></iframe>',
        f'<p style="background: url({CDN})">text</p>',
        f"<style>@import '{CDN}';</style>",
    ],
)
def test_finds_what_a_page_loads(page: str) -> None:
    (found,) = find_external_addresses(page, ".html")
    assert found in (CDN, CDN.removeprefix("https:"))


@pytest.mark.parametrize(
    "page",
    [
        f'<a href="{CDN}">a link</a>',
        f'<link rel="canonical" href="{CDN}">',
        '<script src="_static/theme.js"></script>',
        '<img alt="" src="data:image/png;base64,AAAA">',
        '<svg xmlns="http://www.w3.org/2000/svg"></svg>',
        f"<pre>&lt;script src='{CDN}'&gt;</pre>",
    ],
)
def test_lets_links_and_neighbors_pass(page: str) -> None:
    assert find_external_addresses(page, ".html") == []


def test_reads_style_sheets() -> None:
    assert find_external_addresses(f"@font-face {{ src: url('{CDN}') }}", ".css") == [CDN]


def test_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "api").mkdir()
    (tmp_path / "index.html").write_text("<p>nothing</p>")
    (tmp_path / "api" / "head.html").write_text(f'<script src="{CDN}"></script>')
    assert list(find_external_loads(tmp_path)) == [(Path("api/head.html"), CDN)]
