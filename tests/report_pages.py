"""Reports of runs: pages taken apart as a browser would, and the runs that tests of pages share."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import fer_report
from report_runs import CLASSES, plain_faces, with_units, write_run

FACE = {"face", "face wrong"}
VOID = {"meta", "img", "br", "hr", "input", "link"}


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag in VOID or self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts[-1] += data
        elif self._open and self._open[-1] != "style":
            self.words.append(data)

    @property
    def sections(self) -> list[str]:
        """Sections in their order, but for that of the curves, which is always there."""
        found = [str(a.get("id")) for tag, a in self.tags if tag == "section" and "id" in a]
        assert found.pop() == "curves"
        return found

    @property
    def said(self) -> str:
        """All words outside scripts, with single spaces."""
        return re.sub(r"\s+", " ", " ".join(self.words))

    @property
    def data(self) -> dict[str, Any]:
        """What the scripts draw from."""
        content: dict[str, Any] = json.loads(self.scripts[0])
        return content


def page_of(run: Path, *arguments: str) -> Page:
    return Page(fer_report.main([str(run), *arguments]).read_text(encoding="utf-8"))


def write_both_heads(folder: Path) -> Path:
    """Write runs on the same 84 synthetic faces, by the name of their head."""
    faces = with_units(plain_faces(84))
    for seed, head in enumerate(("fdrl", "linear")):
        write_run(folder / head, faces, head=head, seed=seed)
    return folder


def page_of_both(runs: Path) -> Page:
    """Return the report of FDRL beside its baseline."""
    return page_of(runs / "fdrl", "--baseline", str(runs / "linear"))


EVIL = (
    "</script><script>document.title='broken'</script>",
    '"><img src=x onerror="document.title=\'broken\'">',
    "'><svg onload=alert(1)>.png",
    "<!--<script>",
    "{{ 7 * 7 }}${7*7}\u2028&amp;",
)


def write_evil_report(folder: Path) -> Path:
    """Report a run whose files and classes have names that try to be more than names."""
    faces = replace(plain_faces(21), names=tuple(EVIL[i % 5] + str(i) for i in range(21)))
    classes = (*EVIL, *CLASSES[5:])
    run = write_run(folder / "run", faces, classes=classes, dataset="folder", data="<b>")
    return fer_report.main([str(run)])
