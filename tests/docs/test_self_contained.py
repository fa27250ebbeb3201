from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="needs what the documentation is built with")

from self_contained import all_loaded, loaded_from_elsewhere

CDN = "https://cdn.example.org/x"


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
    (found,) = loaded_from_elsewhere(page, ".html")
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
    assert loaded_from_elsewhere(page, ".html") == []


def test_reads_style_sheets() -> None:
    assert loaded_from_elsewhere(f"@font-face {{ src: url('{CDN}') }}", ".css") == [CDN]


def test_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "api").mkdir()
    (tmp_path / "index.html").write_text("<p>nothing</p>")
    (tmp_path / "api" / "head.html").write_text(f'<script src="{CDN}"></script>')
    assert list(all_loaded(tmp_path)) == [(Path("api/head.html"), CDN)]
