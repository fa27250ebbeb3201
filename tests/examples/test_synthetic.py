from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from fer.data.action_units import EXPRESSIONS, LIKELIHOODS, UNITS, UNLISTED_LIKELIHOOD, sample_units
from fer.data.drawing.curves import bezier, stroke
from fer.data.drawing.face import draw_face
from fer.data.drawing.light import Light, photograph
from fer.data.drawing.person import Person, sample_person
from fer.data.drawing.setting import Setting
from fer.data.drawing.view import View
from fer.data.faces import FaceSet
from fer.data.synthetic import MIN_SIZE, draw_synthetic_faces
from report_runs import CLASSES
from small_runs import assert_same

Picture = NDArray[np.int64]
Span = tuple[float, float]

SIZE = 144
PERSON, SETTING = Person(), Setting()
RELAXED = dict.fromkeys(UNITS, 0.0)
# Where a unit may change the picture of the typical face: from the forehead (-1.1) over brows
# (-0.4), eyes (-0.13), tip of the nose (0.34) and mouth (0.73) to below the chin (1.5).
REACH = {1: (-1.1, -0.2), 2: (-1.1, -0.2), 4: (-0.8, 0.12), 5: (-0.45, 0.12), 43: (-0.4, 0.12)}
REACH |= {6: (-0.4, 0.85), 9: (-0.6, 1.0), 12: (0.15, 1.05), 15: (0.55, 1.15), 20: (0.5, 1.05)}
REACH |= {25: (0.55, 1.15), 26: (-0.2, 1.6)}  # the whole jaw, up to the ears


def photo(
    *units: int, strength: float = 1.0, person: Person = PERSON, setting: Setting = SETTING
) -> Picture:
    """Draw a face that shows some units; without any it is at rest."""
    shown = RELAXED | dict.fromkeys(units, strength)
    return np.asarray(draw_face(person, shown, View(), setting, SIZE)).astype(np.int64)


def pixel(at: float) -> float:
    """Return the row or column of a face coordinate."""
    return SIZE * (0.5 + 0.345 * at)


def change(picture: Picture) -> tuple[Picture, int, int]:
    """Return how much each row differs from the face at rest, and the first and last that do."""
    found = np.abs(picture - photo()).sum(axis=(1, 2))
    rows = np.flatnonzero(found)
    return found, rows.min(), rows.max()


def white_pixels(picture: Picture, x: Span, y: Span) -> int:
    """Return how many pixels of a box are as bright and pale as teeth and eyes, unlike skin."""
    (left, right), (top, bottom) = ([round(pixel(at)) for at in span] for span in (x, y))
    box = picture[top:bottom, left:right]
    return int(((box.min(axis=2) > 150) & (np.ptp(box, axis=2) < 25)).sum())


def dark_row(picture: Picture, x: float, y: Span) -> float:
    """Return how far down the darkness in a column two pixels wide lies: its center of mass."""
    column = 255 - picture[:, round(pixel(x)) : round(pixel(x)) + 2].sum(axis=(1, 2)) / 6
    rows = np.arange(round(pixel(y[0])), round(pixel(y[1])))
    weight = np.maximum(column[rows] - 130, 0)
    return float((rows * weight).sum() / weight.sum())


def red_rows(picture: Picture, x: float) -> Picture:
    """Return the rows of the lips in the column at `x`, which are redder than the skin."""
    column = picture[:, round(pixel(x))]
    rows = np.flatnonzero(column[:, 0] - column[:, 1] > 68)
    return rows[(rows > pixel(0.5)) & (rows < pixel(1.4))]


def test_shapes_types_names_and_balance() -> None:
    database = draw_synthetic_faces(9, 5, size=40)
    assert database.name == "synthetic"
    assert database.classes == CLASSES
    assert "AU12 lip corner puller" in database.units
    assert list(database.splits) == ["train", "test"]
    for count, faces in zip((9, 5), database.splits.values(), strict=True):
        assert faces.images.shape == (count, 3, 40, 40)
        assert faces.images.dtype == torch.uint8
        assert faces.images.is_contiguous()
        assert faces.labels.dtype == torch.int64
        assert faces.units is not None
        assert faces.units.shape == (count, len(database.units))
        assert faces.units.dtype == torch.float32
        assert 0 <= faces.units.min() <= faces.units.max() <= 1
        assert len(set(faces.names)) == count
    counts = Counter(database.splits["train"].labels.tolist())
    assert sorted(counts) == list(range(7))
    assert set(counts.values()) == {1, 2}
    empty = draw_synthetic_faces(0, 1).splits["train"]
    assert (len(empty), empty.images.shape) == (0, (0, 3, 72, 72))


def first(faces: FaceSet, count: int) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    assert faces.units is not None
    return faces.images[:count], faces.units[:count], faces.names[:count]


def test_a_face_depends_on_seed_split_and_index_alone_and_no_other_is_the_same() -> None:
    few, many = draw_synthetic_faces(5, 2, size=24), draw_synthetic_faces(30, 30, size=24)
    for split, count in (("train", 5), ("test", 2)):
        assert_same(first(few.splits[split], 9), first(many.splits[split], count))
    sets = [*many.splits.values(), *draw_synthetic_faces(30, 30, size=24, seed=1).splits.values()]
    images = torch.cat([faces.images for faces in sets]).flatten(1)
    assert len(images.unique(dim=0)) == 120


def test_images_are_upright_and_units_belong_to_their_labels() -> None:
    database = draw_synthetic_faces(210, 0, size=24)
    faces = database.splits["train"]
    assert faces.units is not None
    mean = faces.images.float().mean(dim=(0, 1))
    assert 3 * (mean - mean.flip(1)).abs().mean() < (mean - mean.flip(0)).abs().mean()
    smiling = faces.units[:, database.units.index("AU12 lip corner puller")]
    happy = faces.labels == database.classes.index("Happiness")
    assert smiling[happy].mean() > 0.4
    assert smiling[~happy].mean() < 0.1


@pytest.mark.parametrize(
    ("bad", "error", "match"),
    [
        ({"train": -1}, ValueError, "train must be at least 0, got -1"),
        ({"test": -3}, ValueError, "test must be at least 0, got -3"),
        ({"size": MIN_SIZE - 1}, ValueError, "size must be at least 24, got 23"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ({"train": 2.0}, TypeError, "train must be an integer, got float: 2.0"),
        ({"size": True}, TypeError, "size must be an integer, got bool: True"),
    ],
)
def test_rejects_bad_arguments(bad: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        draw_synthetic_faces(**{"train": 0, "test": 0, **bad})


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_units_are_as_likely_as_the_table_says(expression: str) -> None:
    rng, count = np.random.default_rng(0), 1500
    samples = [sample_units(rng, expression) for _ in range(count)]
    settled = {5, 25}  # by AU43 and AU26, see below
    for number in UNITS.keys() - settled:
        share = sum(sample[number] > 0 for sample in samples) / count
        chance = LIKELIHOODS[expression].get(number, UNLISTED_LIKELIHOOD)
        assert share == pytest.approx(chance, abs=4 * (chance * (1 - chance) / count) ** 0.5)


def test_units_share_expressions_and_settle_what_excludes_or_implies_another() -> None:
    shared = Counter(number for own in LIKELIHOODS.values() for number in own)
    assert max(shared.values()) >= 4
    rng = np.random.default_rng(0)
    samples = [sample_units(rng, name) for name in EXPRESSIONS for _ in range(200)]
    assert any(sample[43] > 0 for sample in samples)
    assert all(sample[5] == 0 for sample in samples if sample[43] > 0)
    assert all(sample[25] >= sample[26] for sample in samples)


@pytest.mark.parametrize("number", UNITS)
def test_a_unit_changes_its_region_alone_and_more_the_stronger_it_is(number: int) -> None:
    full, above, below = change(photo(number))
    top, bottom = REACH[number]
    assert pixel(top) <= above < below <= pixel(bottom)
    assert full.max() > 5000
    faint, half = (change(photo(number, strength=strength))[0].sum() for strength in (0.25, 0.5))
    assert 0 < faint < half < full.sum()


def test_units_move_the_brows_and_the_wings_of_the_nose() -> None:
    reach = (-0.72, -0.26)
    inner, outer = PERSON.eye_x - 0.18, PERSON.eye_x + 0.2
    rest, up, arched, down = photo(), photo(1), photo(2), photo(4)
    assert dark_row(up, inner, reach) < dark_row(rest, inner, reach) - 2
    assert dark_row(down, inner, reach) > dark_row(rest, inner, reach) + 1
    assert dark_row(arched, outer, reach) < dark_row(rest, outer, reach) - 4
    assert abs(dark_row(up, outer, reach) - dark_row(rest, outer, reach)) < 1
    nostril, reach = 0.5 * PERSON.nose_width, (PERSON.nose_tip - 0.12, PERSON.nose_tip + 0.15)
    assert dark_row(photo(9), nostril, reach) < dark_row(rest, nostril, reach) - 1


def test_lid_units_open_and_close_the_eyes() -> None:
    pictures = (photo(5), photo(), photo(6), photo(43))
    wide, rest, squint, shut = (white_pixels(p, (0.15, 0.68), (-0.4, 0.05)) for p in pictures)
    assert wide > rest > 3 * squint
    assert squint > shut == 0


def test_mouth_units_move_the_corners_of_the_mouth() -> None:
    smile, rest, frown = (red_rows(p, 0.26).mean() for p in (photo(12), photo(), photo(15)))
    assert smile < rest - 1 < rest + 1 < frown
    stretched, as_before = (
        sum(len(red_rows(picture, x)) > 0 for x in np.linspace(-0.7, 0.7, 140))
        for picture in (photo(20), photo())
    )
    assert stretched > 1.1 * as_before


def test_jaw_drop_lowers_lower_lip_and_chin_and_lips_part_shows_teeth() -> None:
    rest, _, drop = pictures = (photo(), photo(25), photo(26))
    lowest = [int(red_rows(picture, 0.0).max()) for picture in pictures]
    assert lowest[0] < lowest[1] < lowest[2] - 3
    teeth = [white_pixels(picture, (-0.3, 0.3), (0.6, 0.9)) for picture in pictures]
    assert teeth[0] == 0
    assert min(teeth[1:]) > 10
    columns = (picture[:, round(pixel(0.62))] for picture in (rest, drop))
    chin = [int(np.flatnonzero(column[:, 0] - column[:, 2] > 20).max()) for column in columns]
    assert chin[1] > chin[0] + 3


def test_people_differ() -> None:
    rng = np.random.default_rng(0)
    people = [sample_person(rng) for _ in range(60)]
    assert len({person.eye_x for person in people}) == 60
    assert {person.style for person in people} == {"short", "fringe", "parted", "long", "bald"}
    assert 0 < sum(person.glasses is not None for person in people) < 30
    assert 0 < sum(person.beard > 0 for person in people) < 30


def test_glasses_and_a_hand_cover_what_they_are_before() -> None:
    glasses = photo(person=replace(PERSON, glasses=(20, 20, 20)))
    hand = photo(setting=Setting(hand=(0.4, 0.6)))
    for picture, (top, bottom) in ((glasses, (-0.4, 0.2)), (hand, (0.5, 1.5))):
        found, above, below = change(picture)
        assert found.max() > 300
        assert pixel(top) <= above < below <= pixel(bottom)


def test_a_face_is_symmetric_and_a_turned_head_moves_its_features_alone() -> None:
    picture = photo(2, 6, 15)
    assert np.abs(picture - picture[:, ::-1]).mean() < 0.6
    points = np.array([[0.0, 0.0], [1.05, 0.05], [-1.05, 0.05]])
    straight, turned = View().project(points, 100), View(yaw=0.2).project(points, 100)
    move = turned[:, 0] - straight[:, 0]
    assert move[0] > 5
    np.testing.assert_allclose(move[1:], (-0.72, 0.72), atol=0.02)


def test_light_brightens_slopes_and_adds_noise_and_plain_light_does_nothing() -> None:
    picture = draw_face(PERSON, RELAXED, View(), SETTING, 32)

    def take(**light: float) -> NDArray[np.float64]:
        return photograph(picture, Light(**light), np.random.default_rng(0)).astype(np.float64)

    plain = take()
    np.testing.assert_array_equal(plain, np.asarray(picture))
    np.testing.assert_allclose(take(brightness=0.5), 0.5 * plain, atol=0.51)
    slope = take(slope=0.2) - plain
    assert slope[:, :8].max() <= 0 <= slope[:, 24:].min()
    noise = (take(noise=4.0) - plain)[plain.max(axis=2) < 230]
    assert noise.std() == pytest.approx(4.0, rel=0.15)


def test_curves_and_strokes() -> None:
    line = bezier((0.0, 0.0), (1.0, 0.0), (2.0, 0.0), count=5)
    np.testing.assert_allclose(line[:, 0], (0.0, 0.5, 1.0, 1.5, 2.0), atol=1e-12)
    np.testing.assert_array_equal(line[:, 1], 0.0)
    rim = stroke(line, 0.4, 0.5, 1.0)
    np.testing.assert_allclose(rim[[0, 2, 4], 1], (0.1, 0.2, 0.2), atol=1e-6)
    np.testing.assert_allclose(rim[::-1] * np.array([1.0, -1.0]), rim, atol=1e-12)
