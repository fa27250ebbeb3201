"""Reports in a real browser: what their scripts do, and what names in them cannot do."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fer.report.folder import read_folder
from report_pages import EVIL, FACE, Page, write_evil_report
from report_runs import CLASSES, LATENTS, UNITS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


def in_browser(path: Path, profile: Path, fragment: str = "") -> str:
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu"]
    command += [f"--user-data-dir={profile}", "--virtual-time-budget=4000", "--dump-dom"]
    command += [f"{path.resolve().as_uri()}{fragment}"]
    done = subprocess.run(command, capture_output=True, timeout=120, check=True)
    return done.stdout.decode()


def panel_of(dom: str) -> str:
    """Return the words of the panel, or nothing where it is hidden."""
    found = re.search(r'<aside id="panel"([^>]*)>(.*?)</aside>', dom, re.DOTALL)
    assert found is not None
    if "hidden" in found[1]:
        return ""
    return html.unescape(re.sub(r"<[^>]*>", " ", found[2]))


def test_the_address_of_a_face_shows_its_panel(page: Page, runs: Path, tmp_path: Path) -> None:
    # As it was written, with its policy: that the panel is filled shows that the script may run.
    said = panel_of(in_browser(runs / "fdrl" / "report.html", tmp_path, "#face-17"))
    run = read_folder(runs / "fdrl")
    found = run.evaluation
    assert run.faces.names[17] in said
    truth, predicted = (CLASSES[each[17]] for each in (found.labels, found.predictions))
    assert f"true class {truth}, predicted {predicted}" in said
    for p in found.probabilities[17]:
        assert f"{100 * p:.1f} %" in said or f"{100 * p:.2f}"[-1] == "5"
    shown = [float(n) for n in re.findall(r"Latent \d+\s+([\d.e+-]+)", said)]
    assert found.intra_weights is not None
    assert shown == pytest.approx(found.intra_weights[17].tolist(), rel=6e-3)
    assert "The line is the mean of" in said
    assert all(unit in said for unit in UNITS)


def test_no_name_runs_in_a_browser(tmp_path: Path) -> None:
    dom = in_browser(write_evil_report(tmp_path / "evil"), tmp_path, "#face-1")
    assert "broken" not in str(re.search(r"<title>(.*?)</title>", dom))
    assert "<img" not in dom
    assert EVIL[1] in panel_of(dom)


# What a person does, in order; each step is given time to show.
CLICKS = """
const found = [];
const panel = document.getElementById("panel");
const wait = () => new Promise((go) => setTimeout(go, 60));
const step = async (name, act) => { act(); await wait(); found.push([name, panel.hidden ? null : Number(panel.dataset.face)]); };
const key = (target, name) => target.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
(async () => {
  const map = document.querySelector(".map");
  await step("start", () => {});
  await step("top", () => document.querySelector(".latent a.face").click());
  await step("next", () => panel.querySelectorAll("button")[1].click());
  await step("escape", () => key(document.body, "Escape"));
  await step("map", () => map.querySelectorAll("path")[5].dispatchEvent(new MouseEvent("click", { bubbles: true })));
  await step("close", () => panel.querySelectorAll("button")[2].click());
  await step("keys", () => { key(map, "ArrowRight"); key(map, "ArrowDown"); key(map, "Enter"); });
  await step("error", () => document.querySelector("#errors a.face").click());
  document.querySelector('.confusion button[data-true="3"][data-predicted="3"]').click();
  found.push(["cell", document.querySelectorAll("#cell a.face").length]);
  document.querySelector('#legend button[data-class="2"]').click();
  found.push(["alone", map.querySelectorAll("path:not(.dim)").length]);
  const color = document.getElementById("color");
  color.value = "w4";
  color.dispatchEvent(new Event("change"));
  found.push(["painted", [...map.querySelectorAll("path")].every((mark) => mark.style.fill.includes("color-mix"))]);
  found.push(["charts", document.querySelectorAll(".charts svg.plot path.line").length]);
  found.push(["wide", document.documentElement.scrollWidth - innerWidth]);
  document.body.append(Object.assign(document.createElement("pre"), { id: "found", textContent: JSON.stringify(found) }));
})();
"""  # noqa: E501


def test_clicks_and_keys_do_what_they_should(page: Page, runs: Path, tmp_path: Path) -> None:
    # The policy would not let this script of the test run.
    free = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.text)
    copy = tmp_path / "copy.html"
    copy.write_text(free.replace("</body>", f"<script>{CLICKS}</script></body>"), encoding="utf-8")
    dom = in_browser(copy, tmp_path / "profile")
    written = re.search(r'<pre id="found">(.*?)</pre>', dom)
    assert written is not None, "the clicks did not end"
    found = dict(json.loads(html.unescape(written[1])))
    faces = [int(str(a["href"])[6:]) for _, a in page.tags if a.get("class") in FACE]
    evaluation = read_folder(runs / "fdrl").evaluation
    labels, predictions = evaluation.labels, evaluation.predictions
    assert found.pop("keys") in range(84)
    assert found.pop("wide") <= 0
    wanted = {"start": None, "top": faces[0], "next": faces[1], "escape": None, "map": 5}
    wanted |= {"close": None, "error": faces[12 * LATENTS], "alone": (labels == 2).sum()}
    wanted |= {"cell": ((labels == 3) & (predictions == 3)).sum(), "painted": True}
    # Accuracy has two lines, mean class accuracy one, and so have five losses.
    assert found == wanted | {"charts": 8}
