"""A check after each build that no page loads anything from another place.

Links may lead anywhere, but what a browser fetches by itself must be stored with the page. So the
documentation can be read without a network, and no other site can record who reads it.
"""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util import logging

LOADED = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src",),
    "image": ("href", "xlink:href"),
    "img": ("src", "srcset"),
    "input": ("src",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src", "srcset"),
    "track": ("src",),
    "use": ("href", "xlink:href"),
    "video": ("src", "poster"),
}
"""The attributes that a browser fetches, by element."""

NOT_FETCHED = {"alternate", "author", "canonical", "help", "index", "license", "next", "prev"}
NOT_FETCHED |= {"search"}
"""Kinds of <link> that do not load anything."""

_ELSEWHERE = re.compile(r"(?:https?:)?//")
_IN_STYLE = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s]+)""")
_IN_SCRIPT = re.compile(r"""(?:import|from|importScripts\(|fetch\()\s*["'](https?://[^"']+)""")

_log = logging.getLogger(__name__)


class _Loads(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._inside = tag if tag in ("script", "style") else ""
        values = [given.get(name, "") for name in LOADED.get(tag, ())]
        if tag == "link" and not NOT_FETCHED & set(given.get("rel", "").split()):
            values.append(given.get("href", ""))
        self.found += [value for value in values if _ELSEWHERE.match(value.strip())]
        self.found += _IN_STYLE.findall(given.get("style", ""))

    def handle_data(self, data: str) -> None:
        if self._inside == "style":
            self.found += _IN_STYLE.findall(data)
        if self._inside == "script":
            self.found += _IN_SCRIPT.findall(data)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


def find_external_addresses(text: str, suffix: str) -> list[str]:
    """Return the addresses that a page, a style sheet or a script would fetch from elsewhere."""
    if suffix == ".css":
        return _IN_STYLE.findall(text)
    if suffix in (".js", ".mjs"):
        return _IN_SCRIPT.findall(text)
    page = _Loads()
    page.feed(text)
    return page.found


def find_external_loads(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield each file of a built documentation that loads from elsewhere, with the address."""
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".html", ".css", ".js", ".mjs", ".svg"):
            for address in find_external_addresses(file.read_text(errors="replace"), file.suffix):
                yield file.relative_to(folder), address


def _check(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        for file, address in find_external_loads(Path(app.outdir)):
            _log.warning("%s loads %s", file, address, type="self_contained")


def setup(app: Sphinx) -> dict[str, Any]:
    """Run the check at the end of every build of pages."""
    app.connect("build-finished", _check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
