import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fer.alignment.align import align_by_eyes, eye_positions
from fer.data.action_units import UNITS
from fer.data.drawing.face import draw_face, project_eyes
from fer.data.drawing.person import Person
from fer.data.drawing.setting import Setting
from fer.data.drawing.view import View
from fer.report.pictures import as_tensor

PERSON = Person(eye_height=0.4)
"""Whose lids do not cover the irises, so that their middles can be seen."""

DRAWN = [
    (View(roll=0.5, shift_x=0.06, shift_y=-0.05), 300),
    (View(roll=-0.3, zoom=0.95, shift_x=-0.04, shift_y=0.03), 400),
    (View(roll=0.1), 700),
]
"""Similarities of a face seen straight, made by the drawing itself: no yaw and no pitch.

The blur of shadows goes by the size of the picture, so that mostly goes up and down, not the zoom.
"""


def aligned(image: Tensor, points: Tensor, size: int, **options: Any) -> Tensor:
    return align_by_eyes(image, points[0], points[1], size, **options)


def noise(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def face(view: View, size: int, person: Person = PERSON) -> Tensor:
    return as_tensor(draw_face(person, dict.fromkeys(UNITS, 0.0), view, Setting(), size))


def eyes(view: View, size: int) -> Tensor:
    return torch.from_numpy(project_eyes(PERSON, view, size))


@pytest.mark.parametrize(("view", "size"), [(View(), 256), *DRAWN])
def test_drawn_faces_know_where_their_eyes_are(view: View, size: int) -> None:
    expected = eyes(view, size)
    assert torch.equal(eyes(replace(view, gaze=0.1), size), expected)
    # Nothing but the irises differs between the two pictures.
    green = face(view, size, replace(PERSON, iris=(0, 250, 0)))
    difference = (face(view, size).double() - green.double()).abs().sum(0)
    y, x = torch.meshgrid(*map(torch.arange, difference.shape), indexing="ij")
    for place, is_left in zip(expected, (True, False), strict=True):
        weight = difference * ((x < expected[:, 0].mean()) == is_left)
        found = torch.stack([(weight * each).sum() / weight.sum() for each in (x, y)])
        # The white highlight pulls the middle of what is colored by a fortieth of an iris.
        allowed = 0.005 * float((expected[1] - expected[0]).norm()) + 0.1
        torch.testing.assert_close(found, place, atol=allowed, rtol=0)


@pytest.mark.parametrize(("view", "size"), DRAWN)
@pytest.mark.parametrize("crop", [64, 128])
def test_a_turned_scaled_and_shifted_face_gives_one_crop(view: View, size: int, crop: int) -> None:
    want = aligned(face(View(), 400), eyes(View(), 400), crop).double()
    got = aligned(face(view, size), eyes(view, size), crop).double()
    inner = slice(crop // 8, -crop // 8)  # the corners may lie beyond the picture
    error = (got - want)[:, inner, inner].abs().mean()
    beside = (got.roll(1, -1) - want)[:, inner, inner].abs().mean()
    assert error < 2
    assert error < beside / 4


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [37, 256])
@pytest.mark.parametrize("options", [{}, {"eye_distance": 0.4, "eye_height": 0.5}], ids=str)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32, torch.float64])
def test_the_identity_gives_the_identical_image_in_its_type(
    channels: int, size: int, options: dict[str, float], dtype: torch.dtype
) -> None:
    image, points = noise(channels, size, size), eye_positions(size, **options)
    image = image if dtype == torch.uint8 else (image / 255).to(dtype)
    got, error = aligned(image, points, size, **options), float(1e-4 * dtype.is_floating_point)
    torch.testing.assert_close(got, image, atol=error, rtol=0)
    wanted = torch.tensor([(18.7, 31.5), (44.3, 31.5)]).double()
    torch.testing.assert_close(eye_positions(64, eye_distance=0.4, eye_height=0.5), wanted)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_quarter_turns_are_exact(quarters: int) -> None:
    image, points = noise(3, 64, 64), eye_positions(64)
    for _ in range(quarters):  # counterclockwise, as rot90 turns
        points = torch.stack([points[:, 1], 63 - points[:, 0]], dim=1)
    assert torch.equal(aligned(image.rot90(quarters, (1, 2)), points, 64), image)


@pytest.mark.parametrize("scale", [0.3, 1.0, 1.7, 3.2])
@pytest.mark.parametrize("degrees", [0, 33, 120, -75])
def test_a_linear_ramp_is_reproduced_under_any_similarity(scale: float, degrees: float) -> None:
    size, middle = 24, 150.0
    y, x = torch.meshgrid(torch.arange(300.0).double(), torch.arange(320.0).double(), indexing="ij")
    image = torch.stack([x, y, 3 * x - 2 * y + 5])
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = scale * torch.tensor([(cos, -sin), (sin, cos)]).double()
    points = eye_positions(size) @ turn.T + middle
    v, u = torch.meshgrid(*2 * [torch.arange(size).double()], indexing="ij")
    wx = turn[0, 0] * u + turn[0, 1] * v + middle
    wy = turn[1, 0] * u + turn[1, 1] * v + middle
    got = aligned(image, points, size)
    torch.testing.assert_close(got, torch.stack([wx, wy, 3 * wx - 2 * wy + 5]))


def test_shrinking_does_not_alias() -> None:
    stripes = torch.zeros(1, 512, 512, dtype=torch.uint8)
    stripes[..., 0::4] = stripes[..., 1::4] = 255
    # Every eighth column, which is where the middles of the crop's pixels lie, is white.
    small = aligned(stripes, eye_positions(64) * 8 + 4, 64)[..., 1:-1].float()
    assert (small - 127.5).abs().max() < 1


def test_a_batch_is_the_crops_of_its_faces() -> None:
    views = [view for view, _ in DRAWN]
    images = torch.stack([face(view, 200) for view in views])
    points = torch.stack([eyes(view, 200) for view in views])
    points[1] = 5 * points[1] - 400  # far apart, so that its crop alone shrinks the picture
    together = align_by_eyes(images, points[:, 0], points[:, 1], 96)
    for got, image, places in zip(together, images, points, strict=True):
        assert torch.equal(got, aligned(image, places, 96))


def test_what_lies_beyond_the_picture_is_as_padding_mode_says() -> None:
    image = torch.full((1, 20, 20), 200, dtype=torch.uint8)
    image[:, :, 0] = 100
    left, right = eye_positions(64) - 30  # the crop begins 30 pixels left of and above the picture
    assert align_by_eyes(image, left, right, 64)[0, 40, 0] == 100
    assert align_by_eyes(image, left, right, 64, padding_mode="zeros")[0, 40, 0] == 0
    assert align_by_eyes(image, left, right, 64, padding_mode="reflection")[0, 40, 20] == 200


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": noise(3, 8, 8).int()}, "images must be uint8 or floating, got torch.int32"),
        ({"images": noise(8, 8)}, "images must be"),
        ({"images": noise(2, 3, 8, 8)}, r"left must be \(2, 2\), got \(2,\)"),
        ({"right": torch.zeros(3)}, r"right must be \(2,\), got \(3,\)"),
        ({"left": torch.tensor([math.nan, 1])}, "left must be finite"),
        ({"left": torch.tensor([5.0, 3.0])}, "must not coincide"),
        ({"size": 0}, "size must be at least 1"),
        ({"eye_distance": 1.0}, r"eye_distance must be in \(0, 1\)"),
        ({"eye_height": 0.0}, r"eye_height must be in \(0, 1\)"),
    ],
)
def test_rejects_what_has_no_crop(changes: dict[str, Any], message: str) -> None:
    eyes = {"left": torch.tensor([2.0, 3.0]), "right": torch.tensor([5.0, 3.0])}
    with pytest.raises((TypeError, ValueError), match=message):
        align_by_eyes(**{"images": noise(3, 8, 8), **eyes, **changes})
