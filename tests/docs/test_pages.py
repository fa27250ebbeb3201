import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ziamath", reason="needs what the documentation is built with")
pytest.importorskip("sphinx", reason="needs what the documentation is built with")

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
            '.. raw:: html\n\n   <script src="https://cdn.example.org/x.js"></script>',
            ["index.html loads https://cdn.example.org/x.js"],
        ),
    ],
    ids=["cannot be drawn", "loads from elsewhere"],
)
def test_what_is_wrong_fails_the_build(wrong: str, words: list[str], tmp_path: Path) -> None:
    status, _, said = build(tmp_path, f"{PAGE}\n{wrong}\n")
    assert status != 0
    assert all(word in said for word in words)
