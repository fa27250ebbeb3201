from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fer.data.action_units import EXPRESSIONS, FOREIGN, LIKELIHOODS, UNITS, sample_units
from fer.data.drawing.curves import bezier, stroke
from fer.data.drawing.face import draw_face
from fer.data.drawing.light import Light, photograph
from fer.data.drawing.person import Person, sample_person
from fer.data.drawing.setting import Setting
from fer.data.drawing.view import View
from fer.data.synthetic import SMALLEST, synthetic_faces

Span = tuple[float, float]

SIZE = 144
RELAXED = dict.fromkeys(UNITS, 0.0)
# Where a unit may change the picture of the typical face: from the forehead (-1.1) over brows
# (-0.4), eyes (-0.13), tip of the nose (0.34) and mouth (0.73) to below the chin (1.5).
REACH = {
    1: (-1.1, -0.2),
    2: (-1.1, -0.2),
    4: (-0.8, 0.12),
    5: (-0.45, 0.12),
    6: (-0.4, 0.85),
    9: (-0.6, 1.0),
    12: (0.15, 1.05),
    15: (0.55, 1.15),
    20: (0.5, 1.05),
    25: (0.55, 1.15),
    26: (-0.2, 1.6),  # the whole jaw, up to the ears
    43: (-0.4, 0.12),
}


def photo(**units: float) -> NDArray[np.int64]:
    """Draw the typical face with the units named, e.g. au12=1.0."""
    shown = RELAXED | {int(name[2:]): value for name, value in units.items()}
    picture = draw_face(Person(), shown, View(), Setting(), SIZE)
    return np.asarray(picture).astype(np.int64)


def pixel(at: float) -> float:
    """Return the row or column of a face coordinate."""
    return SIZE * (0.5 + 0.345 * at)


def white_pixels(picture: NDArray[np.int64], x: Span, y: Span) -> int:
    """Return how many pixels of a box are as bright and pale as teeth and eyes, unlike skin."""
    (left, right), (top, bottom) = ([round(pixel(at)) for at in span] for span in (x, y))
    box = picture[top:bottom, left:right]
    return int(((box.min(axis=2) > 150) & (np.ptp(box, axis=2) < 25)).sum())


def dark_row(picture: NDArray[np.int64], x: float, y: Span) -> float:
    """Return how far down the darkness in a column two pixels wide lies: its center of mass."""
    column = 255 - picture[:, round(pixel(x)) : round(pixel(x)) + 2].sum(axis=(1, 2)) / 6
    rows = np.arange(round(pixel(y[0])), round(pixel(y[1])))
    weight = np.maximum(column[rows] - 130, 0)
    return float((rows * weight).sum() / weight.sum())


def red_rows(picture: NDArray[np.int64], x: float) -> NDArray[np.int64]:
    """Return the rows of the lips in the column at `x`, which are redder than the skin."""
    column = picture[:, round(pixel(x))]
    rows = np.flatnonzero(column[:, 0] - column[:, 1] > 68)
    return rows[(rows > pixel(0.5)) & (rows < pixel(1.4))]


def test_shapes_types_and_names() -> None:
    database = synthetic_faces(9, 5, size=40)
    assert database.name == "synthetic"
    assert database.classes == (
        "Surprise",
        "Fear",
        "Disgust",
        "Happiness",
        "Sadness",
        "Anger",
        "Neutral",
    )
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


def test_a_face_depends_on_seed_split_and_index_alone() -> None:
    few, many = synthetic_faces(5, 2, size=32), synthetic_faces(12, 9, size=32)
    for split, count in (("train", 5), ("test", 2)):
        one, other = few.splits[split], many.splits[split]
        torch.testing.assert_close(one.images, other.images[:count], rtol=0, atol=0)
        assert one.units is not None
        assert other.units is not None
        torch.testing.assert_close(one.units, other.units[:count], rtol=0, atol=0)
        assert one.names == other.names[:count]


def test_no_two_faces_are_the_same() -> None:
    sets = [*synthetic_faces(30, 30, size=24).splits.values()]
    sets += synthetic_faces(30, 30, size=24, seed=1).splits.values()
    images = torch.cat([faces.images for faces in sets]).flatten(1)
    assert len(images.unique(dim=0)) == 120


def test_classes_are_balanced() -> None:
    faces = synthetic_faces(24, 0, size=24).splits["train"]
    counts = Counter(faces.labels.tolist())
    assert sorted(counts) == list(range(7))
    assert set(counts.values()) == {3, 4}


def test_images_are_upright_and_units_belong_to_their_labels() -> None:
    database = synthetic_faces(210, 0, size=24)
    faces = database.splits["train"]
    assert faces.units is not None
    mean = faces.images.float().mean(dim=(0, 1))
    assert 3 * (mean - mean.flip(1)).abs().mean() < (mean - mean.flip(0)).abs().mean()
    smiling = faces.units[:, database.units.index("AU12 lip corner puller")]
    happy = faces.labels == database.classes.index("Happiness")
    assert smiling[happy].mean() > 0.4
    assert smiling[~happy].mean() < 0.1


def test_a_split_may_be_empty() -> None:
    faces = synthetic_faces(0, 1).splits["train"]
    assert faces.images.shape == (0, 3, 72, 72)
    assert len(faces) == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"train": -1}, ValueError, "train must be at least 0, got -1"),
        ({"test": -3}, ValueError, "test must be at least 0, got -3"),
        ({"size": SMALLEST - 1}, ValueError, "size must be at least 24, got 23"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ({"train": 2.0}, TypeError, "train must be an integer, got float: 2.0"),
        ({"size": True}, TypeError, "size must be an integer, got bool: True"),
    ],
)
def test_rejects_bad_arguments(
    arguments: dict[str, int], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        synthetic_faces(**{"train": 0, "test": 0} | arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_units_are_as_likely_as_the_table_says(expression: str) -> None:
    rng, count = np.random.default_rng(0), 1500
    samples = [sample_units(rng, expression) for _ in range(count)]
    settled = {5, 25}  # by AU43 and AU26, see below
    for number in UNITS.keys() - settled:
        share = sum(sample[number] > 0 for sample in samples) / count
        chance = LIKELIHOODS[expression].get(number, FOREIGN)
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
def test_a_unit_changes_its_region_and_nothing_else(number: int) -> None:
    change = np.abs(photo(**{f"au{number}": 1.0}) - photo()).sum(axis=(1, 2))
    rows = np.flatnonzero(change)
    top, bottom = REACH[number]
    assert pixel(top) <= rows.min()
    assert rows.max() <= pixel(bottom)
    assert change.max() > 5000


@pytest.mark.parametrize("number", UNITS)
def test_a_stronger_unit_changes_more(number: int) -> None:
    rest = photo()
    faint, half, full = (
        np.abs(photo(**{f"au{number}": strength}) - rest).sum() for strength in (0.25, 0.5, 1.0)
    )
    assert 0 < faint < half < full


def test_brow_units_move_the_brows() -> None:
    person, reach = Person(), (-0.72, -0.26)
    inner, outer = person.eye_x - 0.18, person.eye_x + 0.2
    rest = photo()
    up, arched, down = photo(au1=1.0), photo(au2=1.0), photo(au4=1.0)
    assert dark_row(up, inner, reach) < dark_row(rest, inner, reach) - 2
    assert dark_row(down, inner, reach) > dark_row(rest, inner, reach) + 1
    assert dark_row(arched, outer, reach) < dark_row(rest, outer, reach) - 4
    assert abs(dark_row(up, outer, reach) - dark_row(rest, outer, reach)) < 1


def test_lid_units_open_and_close_the_eyes() -> None:
    wide, rest, squint, shut = (
        white_pixels(photo(**units), (0.15, 0.68), (-0.4, 0.05))
        for units in ({"au5": 1.0}, {}, {"au6": 1.0}, {"au43": 1.0})
    )
    assert wide > rest > 3 * squint
    assert squint > shut == 0


def test_mouth_units_move_the_corners_of_the_mouth() -> None:
    smile, rest, frown = (
        red_rows(photo(**units), 0.26).mean() for units in ({"au12": 1.0}, {}, {"au15": 1.0})
    )
    assert smile < rest - 1 < rest + 1 < frown

    def columns(picture: NDArray[np.int64]) -> int:
        return sum(len(red_rows(picture, x)) > 0 for x in np.linspace(-0.7, 0.7, 140))

    assert columns(photo(au20=1.0)) > 1.1 * columns(photo())


def test_jaw_drop_lowers_the_lower_lip_and_lips_part_shows_teeth() -> None:
    rest, part, drop = photo(), photo(au25=1.0), photo(au26=1.0)
    lowest = [int(red_rows(picture, 0.0).max()) for picture in (rest, part, drop)]
    assert lowest[0] < lowest[1] < lowest[2] - 3
    teeth = [white_pixels(picture, (-0.3, 0.3), (0.6, 0.9)) for picture in (rest, part, drop)]
    assert teeth[0] == 0
    assert min(teeth[1:]) > 10


def test_jaw_drop_lowers_the_chin() -> None:
    def jaw(picture: NDArray[np.int64]) -> int:
        column = picture[:, round(pixel(0.62))]
        return int(np.flatnonzero(column[:, 0] - column[:, 2] > 20).max())

    assert jaw(photo(au26=1.0)) > jaw(photo()) + 3


def test_a_face_seen_from_the_front_is_symmetric() -> None:
    picture = photo(au2=1.0, au6=1.0, au15=1.0)
    assert np.abs(picture - picture[:, ::-1]).mean() < 0.6


def test_wrinkled_nose_lifts_its_wings() -> None:
    person = Person()
    reach = (person.nose_tip - 0.12, person.nose_tip + 0.15)
    nostril = 0.5 * person.nose_width
    assert dark_row(photo(au9=1.0), nostril, reach) < dark_row(photo(), nostril, reach) - 1


def test_people_differ() -> None:
    rng = np.random.default_rng(0)
    people = [sample_person(rng) for _ in range(60)]
    assert len({person.eye_x for person in people}) == 60
    assert {person.style for person in people} == {"short", "fringe", "parted", "long", "bald"}
    assert 0 < sum(person.glasses is not None for person in people) < 30
    assert 0 < sum(person.beard > 0 for person in people) < 30


def test_glasses_and_a_hand_cover_what_they_are_before() -> None:
    rest = photo()
    glasses = draw_face(replace(Person(), glasses=(20, 20, 20)), RELAXED, View(), Setting(), SIZE)
    hand = draw_face(Person(), RELAXED, View(), Setting(hand=(0.4, 0.6)), SIZE)
    for picture, (top, bottom) in ((glasses, (-0.4, 0.2)), (hand, (0.5, 1.5))):
        change = np.abs(np.asarray(picture) - rest).sum(axis=(1, 2))
        rows = np.flatnonzero(change)
        assert change.max() > 300
        assert pixel(top) <= rows.min() < rows.max() <= pixel(bottom)


def test_a_turned_head_moves_its_features_but_not_its_outline() -> None:
    points = np.array([[0.0, 0.0], [1.05, 0.05], [-1.05, 0.05]])
    straight, turned = View().project(points, 100), View(yaw=0.2).project(points, 100)
    move = turned[:, 0] - straight[:, 0]
    assert move[0] > 5
    np.testing.assert_allclose(move[1:], (-0.72, 0.72), atol=0.02)


def test_a_plain_photograph_leaves_the_picture_as_it_is() -> None:
    picture = draw_face(Person(), RELAXED, View(), Setting(), 32)
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(photograph(picture, Light(), rng), np.asarray(picture))


def test_light_brightens_slopes_and_adds_noise() -> None:
    picture = draw_face(Person(), RELAXED, View(), Setting(), 32)

    def take(light: Light) -> NDArray[np.float64]:
        return photograph(picture, light, np.random.default_rng(0)).astype(np.float64)

    plain = take(Light())
    np.testing.assert_allclose(take(Light(brightness=0.5)), 0.5 * plain, atol=0.51)
    slope = take(Light(slope=0.2)) - plain
    assert slope[:, :8].max() <= 0 <= slope[:, 24:].min()
    noise = (take(Light(noise=4.0)) - plain)[plain.max(axis=2) < 230]
    assert noise.std() == pytest.approx(4.0, rel=0.15)


def test_curves_and_strokes() -> None:
    line = bezier((0.0, 0.0), (1.0, 0.0), (2.0, 0.0), count=5)
    np.testing.assert_allclose(line[:, 0], (0.0, 0.5, 1.0, 1.5, 2.0), atol=1e-12)
    np.testing.assert_array_equal(line[:, 1], 0.0)
    rim = stroke(line, 0.4, 0.5, 1.0)
    np.testing.assert_allclose(rim[[0, 2, 4], 1], (0.1, 0.2, 0.2), atol=1e-6)
    np.testing.assert_allclose(rim[::-1] * np.array([1.0, -1.0]), rim, atol=1e-12)
