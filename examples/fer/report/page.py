"""Render the page from a template, a style and scripts into one self-contained file."""

import base64
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

PARTS = Path(__file__).parent / "page"
DASH = "\N{EN DASH}"
SCRIPTS = ("faces.js", "map.js", "curves.js", "start.js")

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{}'"
"""Content security policy: the browser loads nothing external and runs only our script."""


# A mark for each class, so that color is not the only cue: a disk, a triangle, a square and so on.
SHAPES = (
    "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",
    "M0-5.4L5 3.6H-5z",
    "M-4-4H4V4H-4z",
    "M0-5.6L5.6 0L0 5.6L-5.6 0z",
    "M-1.8-5H1.8V-1.8H5V1.8H1.8V5H-1.8V1.8H-5V-1.8H-1.8z",
    "M0 5.4L5-3.6H-5z",
    "M0-5.4L5.1-1.7L3.2 4.4H-3.2L-5.1-1.7z",
    "M-5-2.6L-2.6-5L0-2.4L2.6-5L5-2.6L2.4 0L5 2.6L2.6 5L0 2.4L-2.6 5L-5 2.6L-2.4 0z",
)


def render(content: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """Render the template; `data` contains plain values for the scripts."""
    # All content is escaped, including names of files and classes; missing variables raise.
    environment = Environment(
        loader=FileSystemLoader(PARTS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": format_percent,
        "number": format_number,
        "sign": format_signed,
    }
    # The scripts share one function scope, which keeps their names out of the global scope.
    bodies = "\n".join((PARTS / name).read_text(encoding="utf-8") for name in SCRIPTS)
    script = f'"use strict";\n(() => {{\n{bodies}}})();\n'
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html").render(
        content,
        data={**data, "shapes": SHAPES},
        shapes=SHAPES,
        policy=POLICY.format(digest),
        script=Markup(script),
        style=Markup((PARTS / "style.css").read_text(encoding="utf-8")),
    )


def format_percent(value: float, digits: int = 1) -> str:
    """Format a percentage, or return a dash for NaN."""
    return DASH if math.isnan(value) else f"{value:.{digits}f}\N{NO-BREAK SPACE}%"


def format_number(value: float, digits: int = 3) -> str:
    """Format a number with `digits` significant digits, or return a dash for NaN."""
    if math.isnan(value):
        return DASH
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.{digits - 1}e}"
    places = max(0, digits - 1 - (math.floor(math.log10(abs(value))) if value else 0))
    return f"{value:.{places}f}"


def format_signed(value: float, digits: int = 2) -> str:
    """Format a number with its sign; a number that rounds to 0 has no sign."""
    shown = f"{abs(value):.{digits}f}"
    if not float(shown):
        return shown
    return ("+" if value > 0 else "\N{MINUS SIGN}") + shown
