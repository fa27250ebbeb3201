import pytest
import torch

from fer import augment


def faces(count: int = 6, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, 48, 48), generator=generator).to(torch.uint8)


def test_draws_are_within_the_margin_and_replay() -> None:
    drawn = augment.draw(1000, 224, torch.Generator().manual_seed(3))
    assert drawn[:, :2].min() == 0
    assert drawn[:, :2].max() == 32  # 256 - 224
    assert 400 < drawn[:, 2].sum() < 600
    assert torch.equal(drawn, augment.draw(1000, 224, torch.Generator().manual_seed(3)))


def test_a_crop_is_that_of_the_resized_face() -> None:
    drawn = torch.tensor([[0, 0, 0], [2, 5, 0], [2, 5, 1], [4, 1, 1], [1, 1, 0], [5, 5, 1]])
    got = augment.for_training(faces(), drawn, 42)
    for index, (top, left, flip) in enumerate(drawn.tolist()):
        # 42 x 256 / 224 is 48, the faces' own size, so that resizing changes nothing.
        want = faces()[index, :, top : top + 42, left : left + 42].float() / 127.5 - 1
        torch.testing.assert_close(got[index], want.flip(-1) if flip else want)


def test_evaluation_crops_the_center() -> None:
    want = faces()[..., 3:45, 3:45].float() / 127.5 - 1
    torch.testing.assert_close(augment.for_evaluation(faces(), 42), want)


@pytest.mark.parametrize("channels", [1, 3])
def test_output_has_three_channels_in_minus_one_to_one(channels: int) -> None:
    drawn = augment.draw(6, 64, torch.Generator().manual_seed(0))
    for got in (
        augment.for_training(faces(channels=channels), drawn, 64),
        augment.for_evaluation(faces(channels=channels), 64),
    ):
        assert got.shape == (6, 3, 64, 64)
        assert got.abs().max() <= 1.0001


def test_a_face_does_not_depend_on_its_batch() -> None:
    together = augment.for_evaluation(faces(), 64)
    alone = torch.cat([augment.for_evaluation(face, 64) for face in faces().split(1)])
    torch.testing.assert_close(together, alone)
