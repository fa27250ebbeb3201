from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from fdrl_layers.backbones.pooling import check_pool, pool_feature, resolved

MAPS = torch.arange(2.0 * 5 * 3 * 3).reshape(2, 5, 3, 3)
TOKENS = torch.arange(2.0 * 4 * 5).reshape(2, 4, 5)
VECTORS = torch.arange(10.0).reshape(2, 5)


@pytest.mark.parametrize(
    ("output", "pool", "expected"),
    [
        (VECTORS, "auto", VECTORS),
        (VECTORS, "none", VECTORS),
        (TOKENS, "auto", TOKENS.mean(1)),
        (TOKENS, "mean", TOKENS.mean(1)),
        (TOKENS, "token", TOKENS[:, 0]),
        (TOKENS, "none", TOKENS),
        (MAPS, "auto", MAPS.mean((2, 3))),
        (MAPS, "mean", MAPS.mean((2, 3))),
        (MAPS.permute(0, 2, 3, 1), "auto", MAPS.mean((2, 3))),
        (MAPS.permute(0, 2, 3, 1), "channels-last", MAPS.mean((2, 3))),
        (VECTORS[:, :, None, None], "auto", VECTORS),
        (VECTORS[:, None, None, :], "auto", VECTORS),
        (torch.ones(2, 1, 1, 1), "auto", torch.ones(2, 1)),
        (MAPS, lambda maps: maps.amax((2, 3)), MAPS.amax((2, 3))),
        ({"pooler_output": VECTORS, "last_hidden_state": TOKENS}, "auto", VECTORS),
        ({"pooler_output": VECTORS, "last_hidden_state": TOKENS}, "token", TOKENS[:, 0]),
        ({"pooler_output": VECTORS, "last_hidden_state": TOKENS}, "none", TOKENS),
        ({"pooler_output": None, "last_hidden_state": TOKENS}, "auto", TOKENS.mean(1)),
        ({"pooler_output": VECTORS[:, :, None, None]}, "auto", VECTORS),
        ({"feature_maps": (torch.ones(2, 3, 6, 6), MAPS)}, "auto", MAPS.mean((2, 3))),
        ({"feature_maps": (torch.ones(2, 3, 6, 6), MAPS)}, "mean", MAPS.mean((2, 3))),
        ({"logits": VECTORS}, "auto", VECTORS),
        ({"logits": VECTORS + 1, "last_hidden_state": TOKENS}, "auto", TOKENS.mean(1)),
    ],
)
def test_pools(output: Any, pool: Any, expected: Tensor) -> None:
    width = expected.shape[-1]
    # What "auto" stands for, decided once, must come to the same.
    for how in ((pool,), (pool, width), (resolved(output, pool), width)):
        torch.testing.assert_close(pool_feature(output, *how), expected)


@given(sides=st.tuples(*[st.integers(1, 6)] * 3), last=st.booleans(), known=st.booleans())
def test_law_maps_are_pooled_right_or_refused(
    sides: tuple[int, int, int], last: bool, known: bool
) -> None:
    channels, height, width = sides
    maps = torch.rand(2, *sides)
    given_maps = maps.permute(0, 2, 3, 1) if last else maps
    try:
        feature = pool_feature(given_maps, "auto", channels if known else None)
    except ValueError as error:
        # Not pytest.raises(), for either outcome may be right.
        assert "pool='mean'" in str(error)  # noqa: PT017
        # It may refuse only what leaves a doubt.
        doubtful = height != width or height == channels
        assert channels == (height if last else width) if known else doubtful
        return
    if known or height == width:
        torch.testing.assert_close(feature, maps.mean((2, 3)))


def test_names_where_channels_were_found() -> None:
    outputs = (MAPS, MAPS.permute(0, 2, 3, 1), TOKENS)
    assert [resolved(each, "auto") for each in outputs] == ["mean", "channels-last", "auto"]
    assert resolved(MAPS, "none") == "none"


@pytest.mark.parametrize(
    ("output", "pool", "width", "error", "match"),
    [
        (MAPS[:, :3], "auto", None, ValueError, r"\(2, 3, 3, 3\).*pool='mean'"),
        (MAPS[..., :2], "auto", None, ValueError, r"pool='channels-last'"),
        (torch.ones(2, 5, 3, 5), "auto", 5, ValueError, "pool='mean'"),
        (MAPS, "auto", 4, ValueError, "pool='mean'"),
        (torch.ones(2), "auto", None, ValueError, r"`pool` 'auto' .*\(2,\)"),
        (torch.ones(2, 3, 4, 5, 6), "auto", None, ValueError, "give `pool` a function"),
        (VECTORS, "mean", None, ValueError, r"'mean' wants tokens .* or maps .*\(2, 5\)"),
        (MAPS, "token", None, ValueError, r"'token' wants tokens"),
        (TOKENS, "channels-last", None, ValueError, r"'channels-last' wants maps"),
        (VECTORS, "auto", 7, ValueError, r"`head.in_features` = 7, got \(2, 5\).*attach_head"),
        ((VECTORS, VECTORS), "auto", None, TypeError, "gave a tuple.*`pool`"),
        ([MAPS], "auto", None, TypeError, "gave a list.*`pool`"),
        (None, "auto", None, TypeError, "gave a NoneType.*`pool`"),
        ({"out": MAPS}, "auto", None, TypeError, "'out'.*pooler_output.*`pool` a function"),
        ({"logits": VECTORS}, "mean", None, TypeError, "'logits'.*last_hidden_state"),
        ({"pooler_output": MAPS}, "auto", None, ValueError, "'pooler_output'.*no vector"),
        ({"feature_maps": ()}, "auto", None, TypeError, "'feature_maps'"),
        (MAPS, lambda maps: [maps], None, TypeError, "`pool` must return a torch.Tensor, got list"),
    ],
)
def test_rejects_what_can_be_read_in_two_ways(
    output: Any, pool: Any, width: int | None, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        pool_feature(output, pool, width)


def test_rejects_an_unknown_pool() -> None:
    with pytest.raises(ValueError, match=r"`pool` must be one of 'auto', 'none', .*, got 'max'"):
        check_pool("max")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="`pool` must be a string or a function, got int"):
        check_pool(3)  # type: ignore[arg-type]
