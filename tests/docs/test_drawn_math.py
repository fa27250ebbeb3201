import re
from xml.etree import ElementTree

import pytest

pytest.importorskip("ziamath", reason="needs what the documentation is built with")
pytest.importorskip("sphinx", reason="needs what the documentation is built with")

from drawn_math import CannotDrawError, drawing

SVG = "{http://www.w3.org/2000/svg}"


def parsed(latex: str, *, inline: bool = True) -> ElementTree.Element:
    return ElementTree.fromstring(drawing(latex, inline=inline))


def height(latex: str, *, inline: bool = True) -> float:
    return float(parsed(latex, inline=inline).attrib["height"].removesuffix("em"))


@pytest.mark.parametrize(
    "latex",
    [
        r"\boldsymbol\alpha_{i,j} = \mathrm{sigmoid}(W_{s_j}^T l_{i,j})",
        r"\hat f_{i,j}, \bar w, \tilde y, \mathcal L_{cls}, \mathbb R",
        r"\langle \bar y, g_m \rangle",
        r"x \xrightarrow{\text{Intra-RM}} f",
        r"\begin{cases} \tanh \lVert g \rVert_2 & j \neq m \cr 0 & j = m \end{cases}",
        r"\begin{pmatrix} 0 & \omega \\ \omega & 0 \end{pmatrix}",
        r"\Bigl[\frac1M, \dots, \frac1M\Bigr]^T \odot \sqrt{x} \leftarrow 2",
    ],
)
def test_draws_what_the_pages_use(latex: str) -> None:
    svg = parsed(latex)
    assert svg.attrib["role"] == "img"
    assert svg.attrib["aria-label"] == latex
    assert svg.find(f"{SVG}path") is not None


def test_takes_the_color_of_the_text_and_refers_to_nothing_outside_itself() -> None:
    svg = parsed(r"\frac{\alpha}{2} \overline{x} \sqrt{\underbrace{a}_{b}}")
    assert {part.get("fill") for part in svg.iter()} - {None} == {"currentColor"}
    assert "href" not in drawing(r"\sum_{j=1}^M x_j", inline=False).replace("xmlns:xlink", "")
    assert " id=" not in drawing("x", inline=True)


def test_stands_on_the_line() -> None:
    depth = {name: parsed(name).attrib["style"] for name in ("x", "x_j")}
    below = {name: float(style.split(":")[1].removesuffix("em")) for name, style in depth.items()}
    assert -0.1 < below["x"] <= 0
    assert below["x_j"] < below["x"] - 0.1


def test_aligns_lines_without_an_environment() -> None:
    assert height(r"a &= b \\ c &= d", inline=False) > 2 * height("a = b", inline=False)


def first_sign(latex: str) -> float:
    """Return how tall the first sign of a formula is drawn."""
    path = parsed(latex, inline=False).find(f"{SVG}path")
    assert path is not None
    below = [float(number) for number in re.findall(r"-?[\d.]+", path.attrib["d"])][1::2]
    return max(below) - min(below)


def test_bars_grow_only_where_they_are_told_to() -> None:
    bar = first_sign(r"\lVert a \rVert")
    assert first_sign(r"\lVert a \rVert \sum_{j=1}^M x_j") == pytest.approx(bar)
    # A grown sign is a group of pieces.
    assert "<g" in drawing(r"\left\lVert \frac{a}{b} \right\rVert", inline=False)
    assert "<g" not in drawing(r"\lVert \frac{a}{b} \rVert", inline=False)
    # Behind a sum below a line they would grow for ever.
    below = height(r"\frac{a}{\sum_{i,j} \lvert w_{ij} \rvert}", inline=False)
    assert below == pytest.approx(height(r"\frac{a}{\sum_{i,j} w_{ij}}", inline=False), rel=0.1)


@pytest.mark.parametrize(
    "latex", [r"\unheardof x", r"\frac{1", "\N{PILE OF POO}", r"\begin{nothing} x \end{nothing}"]
)
def test_rejects_what_it_cannot_draw_in_full(latex: str) -> None:
    with pytest.raises(CannotDrawError):
        drawing(latex, inline=True)
