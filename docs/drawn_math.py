"""Formulas drawn into the pages when they are built, so that the pages need no network.

Each becomes an inline SVG in the color of the surrounding text, with its LaTeX as alternative text.
A formula that cannot be drawn in full is a warning, which our builds treat as an error.
"""

import re
from functools import cache
from typing import Any
from xml.etree import ElementTree

import ziafont
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator
from ziamath import Math
from ziamath.tex import tex2mml

SIZE = 50.0
"""Units of a drawing per em of the page."""

ENVIRONMENTS = {"align", "align*", "aligned", "array", "cases", "split"}
ENVIRONMENTS |= {kind + "matrix" for kind in ("", "b", "B", "p", "small", "v", "V")}
"""Environments that the parser supports; it omits others without a warning."""

BREAK = r"\\\\|\\cr(?![A-Za-z])"
"""A line break, in either notation."""

MATHML = "{http://www.w3.org/1998/Math/MathML}"

# Whole paths instead of symbols with an id, because the id would be repeated in one page.
ziafont.config.svg2 = False
ziafont.config.precision = 1
ElementTree.register_namespace("", MATHML.strip("{}"))

_log = logging.getLogger(__name__)


class CannotDrawError(ValueError):
    """A formula has a command or a character that cannot be drawn."""


@cache
def drawing(latex: str, *, inline: bool) -> str:
    """Return LaTeX as an SVG element, sized in em and aligned with the line of text.

    Raises:
        CannotDrawError: If a part of it would be missing.
    """
    try:
        formula = Math(_mathml(latex, inline), size=SIZE)
    except Exception as error:  # the parser raises errors of any kind
        raise CannotDrawError(f"{type(error).__name__}: {error}") from error
    _require_all_drawn(formula)
    svg = formula.svgxml()
    for name in ("width", "height"):
        svg.set(name, f"{float(svg.attrib[name]) / SIZE:.3f}em")
    if inline:
        depth = formula.node.bbox.ymin - formula.margin
        svg.set("style", f"vertical-align:{depth / SIZE:.3f}em")
    svg.set("role", "img")
    svg.set("aria-label", " ".join(latex.split()))
    for part in svg.iter():
        if part.get("fill") == "black":  # the bar of \overline
            part.set("fill", "currentColor")
        if lines := part.get("d"):
            part.set("d", re.sub(r" ?([A-Z]) ?| (?=-)", r"\1", lines))
    return ElementTree.tostring(svg, encoding="unicode")


def _mathml(latex: str, inline: bool) -> ElementTree.Element:
    """Return LaTeX as MathML, rewritten so that the parser reads all of it."""
    latex = latex.strip()
    if unknown := set(re.findall(r"\\begin\{(.+?)\}", latex)) - ENVIRONMENTS:
        raise CannotDrawError(f"unknown environment: {' '.join(sorted(unknown))}")
    # As in Sphinx's LaTeX builder, lines without an environment are aligned at `&`.
    outside = re.sub(r"\\begin\{(\w+)\}.*?\\end\{\1\}", "", latex, flags=re.DOTALL)
    if not inline and re.search(BREAK, outside):
        latex = rf"\begin{{aligned}} {latex} \end{{aligned}}"
    latex = re.sub(BREAK, r"\\\\", latex)
    # The parser reads the letter of `\mathbb R` only in braces.
    latex = re.sub(r"\\(math\w+)\s+([A-Za-z])(?![A-Za-z])", r"\\\1{\2}", latex)
    root = ElementTree.fromstring(tex2mml(latex, inline=inline))
    root.set("mathcolor", "currentColor")
    _set_right(root)
    return root


def _set_right(root: ElementTree.Element) -> None:
    """Correct what the parser writes and the drawing would misinterpret."""
    for sign in root.iter(f"{MATHML}mo"):
        # Bars grow only after \left and \right, and the hat over a letter is small.
        if sign.text in ("‖", "|") and not sign.get("fence"):
            sign.set("stretchy", "false")
        if sign.text == "\N{COMBINING CIRCUMFLEX ACCENT}":
            sign.text = "\N{MODIFIER LETTER CIRCUMFLEX ACCENT}"
    for table in root.iter(f"{MATHML}mtable"):
        # Given in points, of which a drawing has too many per em.
        if table.get("rowspacing", "").endswith("pt"):
            table.set("rowspacing", "0.4em")
    for over in root.iter(f"{MATHML}mover"):
        if over.find(f"{MATHML}mpadded") is not None:
            for arrow in over.iter(f"{MATHML}mo"):
                arrow.text = "⟶"


def _require_all_drawn(formula: Math) -> None:
    text = "".join(ElementTree.fromstring(formula.mathmlstr()).itertext())
    if unknown := re.findall(r"\\[A-Za-z]*", text):
        raise CannotDrawError(f"unknown: {' '.join(unknown)}")
    missing = {sign for sign in text if not sign.isspace() and not formula.font.glyphindex(sign)}
    if missing:
        raise CannotDrawError(f"no glyph for {' '.join(sorted(missing))}")


def _draw(node: nodes.Element, latex: str, *, inline: bool) -> str:
    try:
        return drawing(latex, inline=inline)
    except CannotDrawError as error:
        _log.warning("cannot draw %r: %s", latex, error, location=node, type="math")
        return ""


def visit_inline(self: HTML5Translator, node: nodes.math) -> None:
    """Put a formula into a line of text."""
    self.body.append(f'<span class="math">{_draw(node, node.astext(), inline=True)}</span>')
    raise nodes.SkipNode


def visit_block(self: HTML5Translator, node: nodes.math_block) -> None:
    r"""Put a formula on its own line, with the number of its \tag or its label next to it."""
    latex, tag = node.astext(), ""
    if found := re.search(r"\\tag\{(.+?)\}", latex):
        latex, tag = latex.replace(found[0], ""), f"({found[1]})"
    elif node["number"]:
        tag = f"({get_node_equation_number(self, node)})"
    self.body.append(self.starttag(node, "div", CLASS="math notranslate nohighlight"))
    self.body.append(f'<div class="formula">{_draw(node, latex, inline=False)}</div>')
    if tag:
        self.body.append(f'<span class="eqno">{tag}')
        self.add_permalink_ref(node, "Link to this equation")
        self.body.append("</span>")
    self.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer under the name that `html_math_renderer` takes."""
    app.add_html_math_renderer("drawn", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
