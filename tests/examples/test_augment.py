import math
from collections.abc import Callable

import pytest
import torch

from fer.training import augment


def faces(count: int = 6, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, 48, 48), generator=generator).to(torch.uint8)


def drawn_by(seed: int, count: int, crop: int, kind: augment.Augment = "paper") -> torch.Tensor:
    return augment.draw_augmentations(count, crop, torch.Generator().manual_seed(seed), kind)


def test_draws_are_within_their_bounds_and_replay() -> None:
    drawn, strong = drawn_by(3, 1000, 224), drawn_by(3, 100, 42, "strong")
    assert drawn[:, :2].min() == 0
    assert drawn[:, :2].max() == 32  # 256 - 224
    assert 400 < drawn[:, 2].sum() < 600
    assert ((strong >= 0) & (strong < 1)).all()
    assert torch.equal(drawn, drawn_by(3, 1000, 224))
    assert torch.equal(strong, drawn_by(3, 100, 42, "strong"))


def test_a_crop_is_that_of_the_resized_face() -> None:
    drawn = torch.tensor([[0, 0, 0], [2, 5, 0], [2, 5, 1], [4, 1, 1], [1, 1, 0], [5, 5, 1]])
    got = augment.augment_for_training(faces(), drawn, 42)
    for index, (top, left, flip) in enumerate(drawn.tolist()):
        # 42 x 256 / 224 is 48, the faces' own size, so that resizing changes nothing.
        want = faces()[index, :, top : top + 42, left : left + 42].float() / 127.5 - 1
        torch.testing.assert_close(got[index], want.flip(-1) if flip else want)
    center = faces()[..., 3:45, 3:45].float() / 127.5 - 1
    torch.testing.assert_close(augment.crop_for_evaluation(faces(), 42), center)


@pytest.mark.parametrize("channels", [1, 3])
def test_output_has_three_channels_in_minus_one_to_one(channels: int) -> None:
    images = faces(channels=channels)
    trained = augment.augment_for_training(images, drawn_by(0, 6, 64), 64)
    for got in (trained, augment.crop_for_evaluation(images, 64)):
        assert got.shape == (6, 3, 64, 64)
        assert got.abs().max() <= 1.0001


def drawn_row(**changes: float) -> torch.Tensor:
    """Return a row for the strong augmentation that changes nothing but what is said."""
    # No angle, a scale of 1, no shift, no mirror, as much light, and nothing hidden.
    middle = dict.fromkeys(("turn", "scale", "right", "down"), 0.5) | {"flip": 0.9}
    lit = {"contrast": 0.5, "brightness": 0.5}
    hidden = dict.fromkeys(("share", "ratio", "top", "left", "whether", "gray"), 0.9)
    return torch.tensor([list((middle | lit | hidden | changes).values())])


def strongly(images: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    return augment.augment_for_training(images, drawn.expand(len(images), -1), 42, "strong")


@pytest.mark.parametrize(
    ("changes", "change"),
    [
        ({}, lambda center: center),
        ({"flip": 0.1}, lambda center: center.flip(-1)),
        ({"contrast": 1.0}, lambda center: (1.3 * center).clamp(-1, 1)),
        ({"brightness": 0.0}, lambda center: (center - 0.4).clamp(-1, 1)),
    ],
    ids=["nothing", "flip", "contrast", "brightness"],
)
def test_strong_changes_the_center_crop_as_the_draws_say(
    changes: dict[str, float], change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    want = change(augment.crop_for_evaluation(faces(), 42))
    torch.testing.assert_close(strongly(faces(), drawn_row(**changes)), want, atol=5e-5, rtol=0)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(
    ("changes", "row", "column"),
    [
        # A point 12 pixels right of the center of the crop, in pixels from that center.
        ({}, 0, 12),
        ({"scale": 1.0}, 0, 12 * 1.2),
        ({"scale": 0.0}, 0, 12 * 0.8),
        ({"turn": 1.0}, -12 * math.sin(augment.ANGLE), 12 * math.cos(augment.ANGLE)),
        ({"turn": 0.0}, 12 * math.sin(augment.ANGLE), 12 * math.cos(augment.ANGLE)),
        ({"right": 1.0}, 0, 12 - augment.SHIFT * 48),
        ({"down": 0.0}, augment.SHIFT * 48, 12),
    ],
)
def test_strong_moves_a_point_where_geometry_says(
    changes: dict[str, float], row: float, column: float, mirrored: bool
) -> None:
    # 48 pixels and a crop of 42, so that resizing changes nothing; the point is a smooth hill.
    places = torch.arange(48) - 23.5
    distance = places[:, None].square() + (places[None, :] - 12).square()
    hill = (255 * (-distance / 8).exp()).round().to(torch.uint8)[None, None]
    got = strongly(hill, drawn_row(**changes | ({"flip": 0.1} if mirrored else {})))[0, 0] + 1
    found = torch.arange(42) - 20.5
    mass = got.sum()
    middle = ((got.sum(1) * found).sum() / mass, (got.sum(0) * found).sum() / mass)
    assert float(middle[0]) == pytest.approx(row, abs=0.1)
    assert float(middle[1]) == pytest.approx(-column if mirrored else column, abs=0.1)


def test_strong_hides_a_rectangle_of_gray_in_half_of_the_faces() -> None:
    images, drawn = faces(1).expand(400, -1, -1, -1), drawn_by(0, 400, 42, "strong")
    drawn[:, :7] = drawn_row()[:, :7]
    changed = (strongly(images, drawn) - augment.crop_for_evaluation(images, 42)).abs() > 1e-4
    share = changed.all(1).float().mean((1, 2))
    assert 0.4 < (share > 0).float().mean() < 0.6
    hidden = share[share > 0]
    assert 0.01 < hidden.min() < 0.03
    assert 0.17 < hidden.max() < 0.22


def test_a_face_does_not_depend_on_its_batch() -> None:
    drawn = drawn_by(1, 6, 42, "strong")
    together = strongly(faces(), drawn)
    pairs = zip(faces().split(1), drawn.split(1), strict=True)
    torch.testing.assert_close(together, torch.cat([strongly(*pair) for pair in pairs]))
    assert together.abs().max() <= 1
    alone = torch.cat([augment.crop_for_evaluation(face, 64) for face in faces().split(1)])
    torch.testing.assert_close(augment.crop_for_evaluation(faces(), 64), alone)
