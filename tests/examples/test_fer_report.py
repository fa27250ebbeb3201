"""The report as it is written: what its page holds, and what it refuses."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fer_report
from fer.model import checkpoint
from fer.options import Options
from fer.report import embedding
from fer.report.embedding import Map
from fer.report.folder import read_folder
from report_pages import EVIL, FACE, Page, page_of, write_both_heads, write_evil_report
from report_runs import CLASSES, UNITS, draw_evaluation, plain_faces, with_units, write_run

SECTIONS = ["run", "accuracy", "confusion", "embedding", "latents", "inter", "units", "errors"]
OF_FDRL = {"latents", "inter", "units"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_both_heads(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def page(runs: Path) -> Page:
    return page_of(runs / "fdrl", "--baseline", str(runs / "linear"))


@pytest.fixture
def quick_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare t-SNE where a test is about something else."""
    points = np.random.default_rng(0).random((4000, 2))
    monkeypatch.setattr(embedding, "make_map", lambda each, _: Map(points[: len(each)], 0.5))


def faces_on(page: Page) -> list[int]:
    """Return the numbers of the faces that the page shows, in their order."""
    return [int(str(a["href"])[6:]) for _, a in page.tags if a.get("class", "") in FACE]


def test_every_section_is_there_and_says_what_was_run_and_how_well(page: Page, runs: Path) -> None:
    assert page.sections == SECTIONS
    targets = {str(a["href"])[1:] for tag, a in page.tags if tag == "a"}
    assert {each for each in targets if "face" not in each} == {*SECTIONS, "curves"}
    found = read_folder(runs / "fdrl").evaluation
    accuracy = 100 * float((found.labels == found.predictions).mean())
    assert f"{accuracy:.1f}\N{NO-BREAK SPACE}%" in page.text
    for words in (
        "synthetic, FDRL head",
        "700 train, 84 test",
        "9 latents of width 128",
        "3 epochs, batches of 64, Adam at 0.002",
        f"torch {torch.__version__}",
        "last epoch (3)",
        "chosen on test, and so too good: not a result",
        "exact McNemar test",
        "Figure 5",
        "t-SNE of all 84 test faces",
        "Intra-W varies over faces by ",
    ):
        assert words in page.said, words


def test_the_confusion_matrix_counts_every_face(page: Page, runs: Path) -> None:
    found = read_folder(runs / "fdrl").evaluation
    counts = np.zeros((7, 7), dtype=int)
    for truth, said in zip(found.labels, found.predictions, strict=True):
        counts[truth, said] += 1
    shown = re.findall(r"<b>(\d+)</b><small>(\d+)</small>", page.text)
    assert [int(count) for _, count in shown] == counts.ravel().tolist()
    percents = 100 * counts / counts.sum(axis=1, keepdims=True)
    assert np.abs([int(p) for p, _ in shown] - percents.ravel()).max() <= 0.51


def test_faces_are_shown_by_intra_w_and_by_confidence(page: Page, runs: Path) -> None:
    found = read_folder(runs / "fdrl").evaluation
    assert found.intra_weights is not None
    shown = faces_on(page)
    for j in range(9):
        wanted = sorted(range(84), key=lambda i: -found.intra_weights[i, j])[:12]  # type: ignore[index]
        assert shown[12 * j : 12 * j + 12] == wanted
    wrong = [i for i in range(84) if found.labels[i] != found.predictions[i]]
    wanted = sorted(wrong, key=lambda i: -found.probabilities[i].max())[:24]
    assert shown[12 * 9 :] == wanted


def test_the_scripts_get_every_face(page: Page, runs: Path) -> None:
    run, baseline = read_folder(runs / "fdrl"), read_folder(runs / "linear")
    data = page.data
    assert data["names"] == list(run.faces.names)
    assert data["labels"] == run.evaluation.labels.tolist()
    assert data["baseline"]["predictions"] == baseline.evaluation.predictions.tolist()
    np.testing.assert_allclose(data["probabilities"], run.evaluation.probabilities, atol=6e-5)
    assert run.evaluation.intra_weights is not None
    np.testing.assert_allclose(data["weights"], run.evaluation.intra_weights, rtol=6e-4)
    assert [len(each["points"]) for each in data["maps"]] == [84, 84]
    assert data["units"] == list(UNITS)


def test_the_page_loads_nothing_from_anywhere(page: Page) -> None:
    for tag, attributes in page.tags:
        assert tag not in {"link", "iframe", "object", "embed", "base", "img", "form", "image"}
        assert not {"src", "srcset", "data", "action", "background"} & set(attributes), tag
        assert str(attributes.get("href", "#")).startswith("#")
        assert not [name for name in attributes if name.startswith("on")]
    assert all(url.startswith("data:image/webp") for url in re.findall(r"url\(([^)]*)", page.text))
    assert "@import" not in page.text
    # The one address is the name of SVG's namespace, which nobody fetches.
    assert set(re.findall(r"https?://[\w./]+", page.text)) == {"http://www.w3.org/2000/svg"}
    (policy,) = [a for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert str(policy["content"]).startswith("default-src 'none'; img-src data:;")


@pytest.mark.usefixtures("quick_maps")
@pytest.mark.parametrize(
    ("changes", "missing", "words"),
    [
        ({"head": "linear"}, OF_FDRL, "linear: the paper's baseline"),
        ({"intra": False}, {"units"}, "made without Intra-RM: every Intra-W is 1"),
        ({"reduction": "sum"}, {"units"}, "There is nothing to show of latents."),
        ({"inter": False}, {"inter"}, "without Inter-RM"),
        ({"dataset": "ferplus", "data": "/secret/place/fer"}, {"units"}, "90 valid"),
    ],
)
def test_what_a_run_has_not_is_absent(
    changes: dict[str, Any], missing: set[str], words: str, tmp_path: Path
) -> None:
    real = "data" in changes
    faces = plain_faces(42, gray=real) if real else with_units(plain_faces(42))
    found = draw_evaluation(faces, head=str(changes.get("head", "fdrl")))
    if not changes.get("intra", True) or changes.get("reduction") == "sum":
        assert found.intra_weights is not None
        found.intra_weights[:] = 1
    if not changes.get("inter", True):
        found = replace(found, inter_weights=None)
    page = page_of(write_run(tmp_path / "run", faces, found, valid=real, **changes))
    assert page.sections == [name for name in SECTIONS if name not in missing]
    assert words in page.said
    assert "secret" not in page.text
    links = {a["href"] for tag, a in page.tags if tag == "a"}
    assert not links & {f"#{name}" for name in missing}
    nothing = "nothing to show" in page.said or "linear" in changes.values()
    assert (page.data["weights"] is None) == nothing


@pytest.mark.parametrize("count", [1, 3])
def test_few_faces_make_a_page_too(count: int, tmp_path: Path) -> None:
    faces = with_units(plain_faces(count))
    found = draw_evaluation(faces)
    right = np.eye(7, dtype=np.float32)[found.labels]
    run = write_run(tmp_path / "run", faces, replace(found, probabilities=right))
    page = page_of(run, "--baseline", str(run))
    assert "too few faces" in page.said
    assert "No face is taken for another class." in page.said
    assert ("There is nothing to show of latents." in page.said) == (count == 1)


@pytest.mark.usefixtures("quick_maps")
def test_a_report_of_the_size_of_ferplus_can_be_mailed(tmp_path: Path) -> None:
    # Noise of twelve pixels a side says more than a face does, and so takes more room.
    noise = torch.rand(3137, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(255 * noise, (48, 48), mode="bicubic")
    faces = replace(plain_faces(3137), images=images.clamp_(0, 255).byte())
    run, baseline = (
        write_run(tmp_path / head, faces, head=head, dataset="ferplus", data="x", epochs=40)
        for head in ("fdrl", "linear")
    )
    out = fer_report.main([str(run), "--baseline", str(baseline)])
    assert 1e6 < out.stat().st_size < 4.5e6
    page = Page(out.read_text(encoding="utf-8"))
    assert "1,500 of the 3,137 test faces, drawn by a fixed seed" in page.said
    assert len(page.data["maps"][0]["points"]) == 1500


def test_no_name_becomes_part_of_the_page(tmp_path: Path) -> None:
    page = Page(write_evil_report(tmp_path).read_text(encoding="utf-8"))
    assert len(page.scripts) == 2
    assert "img" not in {tag for tag, _ in page.tags}
    assert not [name for _, a in page.tags for name in a if name.startswith("on")]
    assert page.data["names"][:5] == [f"{name}{i}" for i, name in enumerate(EVIL)]
    assert "<b>, FDRL head" in page.said
    titles = [a["title"] for _, a in page.tags if a.get("class") in FACE]
    assert set(titles) <= set(page.data["names"])


def write_folds(folder: Path) -> Path:
    """Write the folder of a cross-validation of three folds of 20, 21 and 22 faces."""
    plain: dict[str, Any] = {"dataset": "ckplus", "data": "x", "folds": 3}
    options = Options(epochs=3, **plain).to_dict()
    names = ("test_accuracy", "test_mean_class_accuracy")
    rows: list[dict[str, Any]] = []
    for fold, count in enumerate((20, 21, 22), 1):
        faces = plain_faces(count, prefix=f"fold{fold}")
        run = write_run(folder / f"fold{fold:02d}", faces, fold=fold, **plain)
        last = checkpoint.read_json(run / "summary.json")["last"]
        rows.append({"fold": fold, "faces": count} | {name: last[name] for name in names})
    checkpoint.write_json(folder / "config.json", options)
    means = {name: float(np.mean([row[name] for row in rows])) for name in names}
    summary = {name: {"mean": mean, "deviation": 1.25} for name, mean in means.items()}
    checkpoint.write_json(folder / "summary.json", {"options": options, "folds": rows} | summary)
    return folder


@pytest.mark.usefixtures("quick_maps")
def test_folds_are_pooled_but_for_what_belongs_to_one_model(tmp_path: Path) -> None:
    folder = write_folds(tmp_path / "folds")
    page, run = page_of(folder), read_folder(folder)
    assert "test, 3 folds pooled" in page.said
    assert "deviation over folds: 1.2" in page.said
    assert "63 in 3 folds by person" in page.said
    counts = re.findall(r"<small>(\d+)</small>", page.text)
    assert sum(int(count) for count in counts) == 63
    # Latents and features of another fold are others.
    assert page.data["shown"] == list(range(20))
    assert page.data["model"] == [0] * 20 + [1] * 21 + [2] * 22
    weights = run.evaluation.intra_weights
    assert weights is not None
    second = (run.model_index == 1) & (run.evaluation.labels == 4)
    np.testing.assert_allclose(page.data["means"][1][4], weights[second].mean(axis=0), rtol=1e-3)
    assert max(faces_on(page)[: 12 * 9]) < 20


@pytest.mark.usefixtures("quick_maps")
def test_the_page_goes_where_it_is_told_and_into_the_run_otherwise(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for out in (tmp_path / "nowhere" / "a.html", tmp_path):
        with pytest.raises(SystemExit, match=f"--out must be a file .*{out.name}"):
            fer_report.main([str(runs / "linear"), "--out", str(out)])
    out = fer_report.main([str(runs / "linear"), "--out", str(tmp_path / "page.html")])
    assert out == tmp_path / "page.html"
    assert capsys.readouterr().out == f"{out}: 0.1 MB\n"
    assert fer_report.main([str(runs / "linear")]) == runs / "linear" / "report.html"
    assert out.read_bytes() == (runs / "linear" / "report.html").read_bytes()


def without(name: str) -> Callable[[Path], None]:
    return lambda run: (run / name).unlink()


def of_another_model(run: Path) -> None:
    (run / "config.json").write_text('{"model_type": "bert"}')


def unended_folds(run: Path) -> None:
    shutil.rmtree(run)
    (write_folds(run) / "summary.json").unlink()


def a_table(run: Path) -> None:
    (run / "summary.json").unlink()
    write_run(run / "0.5" / "seed0", plain_faces(14))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "is no folder"),
        (without("config.json"), "holds no run: it has no config.json"),
        (of_another_model, "holds no run: config.json is of something else"),
        (without("summary.json"), "has not ended; .* python examples/fer_rafdb.py --resume .*run"),
        (without("evaluation.pt"), "the run has not ended yet"),
        (unended_folds, r"fer_crossval.py --resume .*run"),
        (a_table, r"holds the 1 runs of a table; name one .*seed0"),
    ],
)
def test_rejects_what_is_no_ended_run(
    spoil: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", plain_faces(14))
    spoil(run)
    with pytest.raises(SystemExit, match=message):
        fer_report.main([str(run)])


def test_rejects_a_baseline_of_other_classes_or_faces(runs: Path, tmp_path: Path) -> None:
    faces = plain_faces(84)
    tested = "tested on the 84 faces"
    for name, others, classes, message in (
        ("classes", faces, CLASSES[::-1], "classes of the run"),
        ("names", replace(faces, names=faces.names[::-1]), CLASSES, tested),
        ("labels", replace(faces, labels=faces.labels.flip(0)), CLASSES, tested),
        ("fewer", plain_faces(83), CLASSES, tested),
    ):
        run = write_run(tmp_path / name, others, classes=classes)
        with pytest.raises(SystemExit, match=f"--baseline must .*{message}"):
            fer_report.main([str(runs / "fdrl"), "--baseline", str(run)])
    assert not (runs / "fdrl" / "report.part").exists()
