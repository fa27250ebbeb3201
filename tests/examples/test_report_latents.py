"""The figures' numbers: maps, latents, units and the sheet of thumbnails."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import spearmanr

from fer.report import embedding, latents, units
from fer.report.sheet import make_sheet
from report_runs import draw_evaluation, plain_faces, write_and_read

Array = NDArray[Any]


def test_a_map_keeps_groups_together_and_is_the_same_again() -> None:
    labels = np.repeat([0, 1, 2], 25)
    noise = np.random.default_rng(0).normal(size=(75, 8))
    features = (10 * np.eye(8)[labels] + noise).astype(np.float32)
    points, again = (embedding.make_map(features, labels).points for _ in range(2))  # type: ignore[union-attr]
    np.testing.assert_array_equal(points, again)
    assert points.shape == (75, 2)
    assert 0 <= points.min() <= points.max() <= 1
    apart = np.linalg.norm(points[:, None] - points, axis=2) + 9 * np.eye(75)
    assert (labels[apart.argmin(axis=1)] == labels).all()


def test_the_silhouette_is_that_of_the_features() -> None:
    features, labels = np.array([0, 1, 10, 12, 11], np.float32), np.array([0, 0, 1, 1, 1])
    by_hand = []
    for feature, k in zip(features, labels, strict=True):
        to = np.abs(features - feature)
        own = to[labels == k].sum() / ((labels == k).sum() - 1)
        other = to[labels != k].mean()
        by_hand.append((other - own) / max(own, other))
    found = embedding.make_map(features[:, None], labels)
    assert found is not None
    assert found.silhouette == pytest.approx(np.mean(by_hand))


@pytest.mark.parametrize("features", [np.zeros((4, 3)), np.ones((20, 3))])
def test_no_map_of_few_or_equal_faces(features: Array) -> None:
    labels = np.arange(len(features)) % 2
    assert embedding.make_map(features.astype(np.float32), labels) is None


def test_a_large_split_is_thinned_out_the_same_way_each_time() -> None:
    faces = np.arange(100, 4000)
    found = embedding.sample_faces(faces)
    assert len(found) == len(set(found)) == embedding.MAX_FACES
    assert set(found) <= set(faces)
    assert (np.diff(found) > 0).all()
    np.testing.assert_array_equal(found, embedding.sample_faces(faces))
    np.testing.assert_array_equal(embedding.sample_faces(faces[:50]), faces[:50])


def test_class_means_and_highest_faces_by_loops() -> None:
    rng = np.random.default_rng(1)
    weights, labels = rng.random((40, 3)).astype(np.float32), rng.integers(0, 4, 40)
    labels[labels == 2] = 0
    means = latents.class_means(weights, labels, 4)
    for k in (0, 1, 3):
        np.testing.assert_allclose(means[k], weights[labels == k].mean(0), rtol=1e-5)
    assert np.isnan(means[2]).all()
    some = np.array([3, 5, 8, 13, 21, 34])
    for found, column in zip(latents.find_top_faces(weights, some, 4), weights.T, strict=True):
        assert found.tolist() == sorted(some, key=(-column).__getitem__)[:4]


def follow(weights: Array, intensity: Array, labels: Array | None = None) -> units.Dependence:
    """Hold weights against units; without labels all faces are of one class."""
    labels = np.zeros(len(weights), dtype=np.int64) if labels is None else labels
    return units.measure_dependence(weights.astype("f4"), intensity.astype("f4"), labels)


def test_following_matches_scipy_pair_by_pair() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, 90)
    intensity = np.maximum(rng.normal(size=(90, 2)), 0)  # ties at 0
    weights = rng.normal(size=(90, 3))
    weights[:, 1] += 2 * intensity[:, 0]
    found = follow(weights, intensity, labels)
    wanted = [[spearmanr(latent, unit).statistic for unit in intensity.T] for latent in weights.T]
    np.testing.assert_allclose(found.correlation, wanted, rtol=0, atol=1e-12)
    # Of one class, within and over all are the same.
    alone = follow(weights, intensity)
    np.testing.assert_allclose(alone.within, alone.correlation, atol=1e-12)
    assert found.strongest[1] == 0
    assert found.information.shape == (3, 2)
    assert found.information[1, 0] > 2 * found.information[0, 0]


def test_information_is_that_of_two_normal_variables() -> None:
    rng, rho = np.random.default_rng(0), 0.8
    unit = rng.normal(size=2000)
    latent = rho * unit + np.sqrt(1 - rho**2) * rng.normal(size=2000)
    found = follow(latent[:, None], unit[:, None])
    assert found.information[0, 0] == pytest.approx(-0.5 * np.log(1 - rho**2), abs=0.08)


def test_ranks_within_classes_by_loops() -> None:
    labels = np.repeat([0, 1, 2], [2, 4, 21])
    weights, intensity = np.random.default_rng(8).random((2, 27, 1))

    def placed(values: Array) -> list[float]:
        """Return how far up its class each value is, from -1/2 to 1/2."""
        classes = [values[labels == k, 0] for k in labels]
        pairs = zip(values, classes, strict=True)
        return [((own < v).sum() - (own > v).sum()) / (2 * len(own)) for v, own in pairs]

    wanted = np.corrcoef(placed(weights), placed(intensity))[0, 1]
    assert follow(weights, intensity, labels).within[0, 0] == pytest.approx(wanted, abs=1e-6)


def test_what_never_changes_follows_nothing() -> None:
    weights, intensity = np.ones((30, 2), np.float32), np.zeros((30, 2), np.float32)
    intensity[:, 0] = np.linspace(0, 1, 30)
    found = follow(weights, intensity)
    assert np.isnan(found.correlation).all()
    assert found.strongest.tolist() == [-1, -1]
    assert np.isnan(found.information[:, 1]).all()
    assert [each.feature for each in units.find_best_features(weights, intensity)] == [-1, -1]


def test_the_yardstick_is_the_feature_that_follows_best_up_or_down() -> None:
    rng = np.random.default_rng(7)
    intensity = rng.random((80, 1)).astype(np.float32)
    features = rng.normal(size=(80, 6)).astype(np.float32)
    features[:, 4] = -(intensity[:, 0] ** 3)
    (found,) = units.find_best_features(features, intensity)
    assert found.feature == 4
    assert found.correlation == pytest.approx(-1)
    assert found.information > 1


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({"head": "linear"}, None, "no latents"),
        ({"intra": False}, 1, "without Intra-RM"),
        ({"reduction": "sum", "gate_init": "linear"}, 64, "the sum of equation 4"),
        ({}, None, "None"),
    ],
    ids=["linear", "without", "sum", "varied"],
)
def test_why_there_is_nothing_to_show(
    changes: dict[str, Any], level: float | None, words: str, tmp_path: Path
) -> None:
    found = draw_evaluation(plain_faces(60), head=changes.get("head", "fdrl"))
    if level is not None and found.intra_weights is not None:
        found.intra_weights[:] = level
    assert words in str(
        latents.explain_uninformative(write_and_read(tmp_path, found=found, **changes))
    )


@pytest.mark.parametrize(("count", "gray"), [(1, False), (7, True), (50, False)])
def test_every_face_lies_where_the_sheet_says(count: int, gray: bool) -> None:
    images = plain_faces(count, gray=gray).images
    found = make_sheet(images)
    kind, content = found.uri.split(",")
    assert kind == "data:image/webp;base64"
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))
    assert picture.shape == (found.rows * 48, found.columns * 48, 3)
    for i in range(count):
        # CSS: 0 % is the first field, 100 % the last.
        x, y = (float(part.rstrip("%")) / 100 for part in found.css_position(i).split())
        column, row = round(x * (found.columns - 1)), round(y * (found.rows - 1))
        shown = picture[48 * row + 24, 48 * column + 24].astype(int)
        wanted = images[i, :, 0, 0].expand(3).numpy().astype(int)
        assert np.abs(shown - wanted).max() < 25, i


def test_a_sheet_that_would_be_too_large_gets_coarser() -> None:
    images = torch.randint(0, 256, (100, 3, 48, 48), generator=torch.Generator().manual_seed(0))
    fine, coarse = make_sheet(images.byte()), make_sheet(images.byte(), max_bytes=40_000)
    assert len(fine.uri) > 3 * len(coarse.uri)
    assert len(coarse.uri) < 40_000 * 4 / 3 + 100
