"""The oracle held against the paper by hand arithmetic, so that it is not its own witness.

The numbers are chosen to be exact on paper: sigmoid(0) = 1/2, sigmoid(ln 3) = 3/4 and
sigmoid(-ln 3) = 1/4; tanh(ln 2) = 3/5 and tanh(ln 3) = 4/5.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from numpy.typing import NDArray

import oracles
import strategies
from comparing import assert_close

LN2, LN3 = math.log(2), math.log(3)
ROWS = np.array([[1.0, 2.0], [3.0, 4.0]])
EYES = np.stack([np.eye(2), np.eye(2)])
NO_WEIGHTS = np.zeros((2, 2, 2))


def test_decomposition_by_hand() -> None:
    x = np.array([[1.0, 2.0]])
    weight = np.array([[[1.0, 0.0], [0.0, -1.0]], [[1.0, 1.0], [2.0, -1.0]]])
    bias = np.array([[0.5, 0.0], [0.0, 1.0]])
    # Latent 1: 1 + 0.5 and relu(-2). Latent 2: 1 + 2 and 2 - 2 + 1.
    latents = oracles.feature_decomposition(x, weight, bias)
    assert_close("latents", latents, np.array([[[1.5, 0.0], [3.0, 1.0]]]))
    latents = oracles.feature_decomposition(x, weight, None)
    assert_close("no bias", latents, np.array([[[1.0, 0.0], [3.0, 0.0]]]))
    # One latent of width 1 from three features: the last axis of a weight to its middle one.
    x, weight = np.array([[1.0, 10.0, 100.0]]), np.array([[[1.0, 2.0, 3.0]]])
    latents = oracles.feature_decomposition(x, weight, None)
    assert_close("widths", latents, np.array([[[321.0]]]))


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [("sum", [1.25, 1.5]), ("mean", [0.625, 0.75]), ("share", [5 / 11, 6 / 11])],
)
def test_intra_relation_by_hand(reduction: str, expected: list[float]) -> None:
    latents = np.array([[[1.0, 0.0], [0.0, 2.0]]])
    # Latent 1 by its weight: (0, ln 3), gates 1/2 and 3/4. Latent 2 by its bias: 3/4 twice.
    weight = np.array([[[0.0, 7.0], [LN3, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    bias = np.array([[0.0, 0.0], [LN3, LN3]])
    features, intra_w = oracles.intra_relation(latents, weight, bias, reduction)
    assert_close("Intra-W", intra_w, np.array([expected]))
    first, second = expected
    assert_close("features", features, np.array([[[first, 0.0], [0.0, 2 * second]]]))


def test_intra_relation_of_one_gate_a_latent() -> None:
    latents, weight = np.ones((1, 2, 1)), np.zeros((2, 1, 1))
    _, intra_w = oracles.intra_relation(latents, weight, np.array([[-LN3], [LN3]]), "mean")
    assert_close("mean", intra_w, np.array([[0.25, 0.75]]))
    # Gates that underflow still have shares.
    bias = np.array([[-2000.0], [-2000.0 + LN3]])
    _, intra_w = oracles.intra_relation(latents, weight, bias, "share")
    assert_close("share", intra_w, np.array([[0.25, 0.75]]))
    with pytest.raises(ValueError, match="reduction"):
        oracles.intra_relation(latents, weight, bias, "max")


def test_inter_relation_by_hand() -> None:
    # Messages (ln 2, 0), (0, 0) and (ln 2, ln 3): a right angle with legs ln 2 and ln 3.
    features = np.array([[[LN2, -5.0], [-1.0, 0.0], [LN2, LN3]]])
    weight = np.stack([np.eye(2)] * 3)
    inter_aware, inter_w = oracles.inter_relation(features, weight, None)
    far = math.tanh(math.sqrt(LN2**2 + LN3**2))
    assert_close("Inter-W", inter_w, np.array([[[0, 0.6, 0.8], [0.6, 0, far], [0.8, far, 0]]]))
    expected = np.array(
        [
            [0.8 * LN2, 0.8 * LN3],  # 0.6 (0, 0) + 0.8 (ln 2, ln 3)
            [0.6 * LN2 + far * LN2, far * LN3],
            [0.8 * LN2, 0.0],  # 0.8 (ln 2, 0) + far (0, 0)
        ]
    )
    assert_close("inter-aware", inter_aware, expected[None])


def test_inter_relation_encodes_with_its_own_weight_and_bias() -> None:
    features = np.array([[[1.0, 1.0], [1.0, 1.0]]])
    weight = np.array([[[0.0, LN2], [0.0, 0.0]], [[1.0, 0.0], [0.0, -9.0]]])
    bias = np.array([[0.0, 0.0], [-1.0, 0.0]])
    # Messages (ln 2, 0) and relu(1 - 1, -9) = (0, 0).
    inter_aware, inter_w = oracles.inter_relation(features, weight, bias)
    assert_close("Inter-W", inter_w, np.array([[[0.0, 0.6], [0.6, 0.0]]]))
    assert_close("inter-aware", inter_aware, np.array([[[0.0, 0.0], [0.6 * LN2, 0.0]]]))


@pytest.mark.parametrize(
    ("intra", "inter", "self_feature", "first", "weight"),
    [
        (None, None, "intra", 1.0, 1.0),  # y = l_1 + l_2
        (NO_WEIGHTS, None, "intra", 0.5, 0.5),  # y = f_1 + f_2, delta plays no part
        (None, EYES, "intra", 0.7, 1.0),  # f = l, f-hat_2 = 0.6 (ln 2, 0)
        # f_1 = (ln 2 / 2, 0), g_1 = 2 f_1, f_2 = g_2 = 0; so again f-hat_2 = 0.6 (ln 2, 0).
        (NO_WEIGHTS, 2 * EYES, "intra", 0.25 * 0.5 + 0.75 * 0.6, 0.5),
        (NO_WEIGHTS, 2 * EYES, "message", 0.25 * 1.0 + 0.75 * 0.6, 0.5),
    ],
    ids=["neither", "intra", "inter", "both", "message"],
)
def test_rows_of_table_2_and_the_message_by_hand(
    intra: Any, inter: Any, self_feature: str, first: float, weight: float
) -> None:
    latents = np.array([[[LN2, 0.0], [0.0, 0.0]]])
    embedding, intra_w, inter_w = oracles.feature_reconstruction(
        latents, intra, None, inter, None, 0.25, "mean", self_feature
    )
    assert_close("embedding", embedding, np.array([[first * LN2, 0.0]]))
    assert_close("Intra-W", intra_w, np.full((1, 2), weight))
    assert (inter_w is None) == (inter is None)


def test_head_by_hand() -> None:
    head = oracles.fdrl_head(
        np.array([[2 * LN2, -1.0]]),
        decomposition_weight=np.stack([np.eye(2), -0.0 * np.eye(2)]),
        intra_weight=NO_WEIGHTS,
        inter_weight=EYES,
        classifier_weight=np.array([[10.0, 3.0], [-1.0, 0.0], [0.0, 1.0]]),
        classifier_bias=np.array([0.0, 0.0, 0.5]),
        delta=0.25,
        reduction="mean",
    )
    assert_close("latents", head.latents, np.array([[[2 * LN2, 0.0], [0.0, 0.0]]]))
    # Gates 1/2, so f_1 = (ln 2, 0), f_2 = 0; then f-hat_1 = 0 and f-hat_2 = 0.6 (ln 2, 0).
    # y = 0.25 (ln 2, 0) + 0.75 * 0.6 (ln 2, 0) = 0.7 (ln 2, 0)
    assert_close("Intra-W", head.intra_weights, np.array([[0.5, 0.5]]))
    assert_close("Inter-W", head.inter_weights, np.array([[[0.0, 0.6], [0.6, 0.0]]]))
    assert_close("embedding", head.embedding, np.array([[0.7 * LN2, 0.0]]))
    assert_close("logits", head.logits, np.array([[7 * LN2, -0.7 * LN2, 0.5]]))


def test_compactness_by_hand() -> None:
    latents = np.array([[[1.0, 2.0], [0.0, 0.0]], [[3.0, 0.0], [0.0, 5.0]]])
    centers = np.array([[1.0, 0.0], [0.0, 1.0]])
    # Sample 1: 4 and 1. Sample 2: 4 and 16. Sums over latents 5 and 20, mean over samples 12.5.
    assert_close("compactness", oracles.compactness_loss(latents, centers), 12.5)


CENTERS = np.array([[1.0, 0.0], [0.0, 0.0]])


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ([0, 1], (4 + 25) / 2),  # (1,2)-(1,0): 4.  (3,4)-(0,0): 25.
        ([1, 0], (5 + 20) / 2),  # (1,2)-(0,0): 5.  (3,4)-(1,0): 4 + 16.
        ([0, -100], 4.0),
        ([-100, -100], 0.0),
        ([[0.25, 0.75], [1.0, 0.0]], (0.25 * 4 + 0.75 * 5 + 20) / 2),
    ],
)
def test_distribution_and_center_loss_by_hand(target: list[object], expected: float) -> None:
    labels = np.array(target)
    distribution = oracles.distribution_loss(ROWS, labels, CENTERS)
    assert_close("distribution", distribution, expected)
    assert_close("center", oracles.center_loss(ROWS, labels, CENTERS), expected / 2)


def test_another_ignore_index() -> None:
    loss = oracles.distribution_loss(ROWS, np.array([0, 1]), CENTERS, ignore_index=1)
    assert_close("distribution", loss, 4.0)


def test_balance_by_hand() -> None:
    # Means 0.25 and 1.5 against 1/2: |-0.25| + |1.0|. Signs do not cancel, samples do.
    assert_close("balance", oracles.balance_loss(np.array([[0.0, 1.0], [0.5, 2.0]])), 1.25)
    assert_close("uniform", oracles.balance_loss(np.array([[0.0, 1.0], [1.0, 0.0]])), 0.0)


@pytest.mark.parametrize(
    ("target", "smoothing", "expected"),
    [
        ([1, 0], 0.0, (math.log(4 / 3) + LN2) / 2),
        ([0, -100], 0.0, math.log(4)),
        ([1, -100], 0.2, 0.1 * math.log(4) + 0.9 * math.log(4 / 3)),
        ([-100, -100], 0.2, 0.0),
        ([[0.5, 0.5], [1.0, 0.0]], 0.0, ((math.log(4) + math.log(4 / 3)) / 2 + LN2) / 2),
    ],
)
def test_cross_entropy_by_hand(target: list[object], smoothing: float, expected: float) -> None:
    logits = np.array([[0.0, LN3], [5.0, 5.0]])  # probabilities (1/4, 3/4) and (1/2, 1/2)
    loss = oracles.cross_entropy(logits, np.array(target), smoothing)
    assert_close("cross-entropy", loss, expected)


def test_cross_entropy_of_large_logits() -> None:
    loss = oracles.cross_entropy(np.array([[1e4, -1e4]]), np.array([1]))
    assert_close("cross-entropy", loss, 2e4)


def test_joint_loss_by_hand() -> None:
    head = oracles.Head(
        logits=np.array([[0.0, LN3]]),
        embedding=np.zeros((1, 2)),
        latents=np.array([[[1.0, 2.0], [0.0, 0.0]]]),
        intra_weights=np.array([[1.0, 2.0]]),
        inter_weights=None,
    )
    given = (head, np.array([0]), np.eye(2), CENTERS)
    joint = oracles.joint_loss(
        *given, lambda_compactness=0.1, lambda_balance=10.0, lambda_distribution=100.0
    )
    # ln 4; 4 + 1; |1 - 1/2| + |2 - 1/2|; (1,2)-(1,0): 4.
    expected = oracles.JointLoss(math.log(4) + 0.5 + 20 + 400, math.log(4), 5.0, 2.0, 4.0)
    assert_close("joint", vars(joint), vars(expected))
    of_the_paper = math.log(4) + 1e-4 * 5 + 1.0 * 2 + 1e-4 * 4
    assert_close("total", oracles.joint_loss(*given).total, of_the_paper)


FEATURES = np.array([[3.0], [6.0], [4.0], [99.0]])
LABELS = np.array([0, 0, 1, -100])
SOFT = np.array([[0.75, 0.25, 0.0], [0.25, 0.75, 0.0]])
THREE = np.array([[0.0], [10.0], [7.0]])  # the third class is absent from the batch


@pytest.mark.parametrize(
    ("update", "features", "target", "rate", "expected"),
    [
        # Class 0: 0 - 0.5 (-3 - 6) / (1 + 2). Class 1: 10 - 0.5 (10 - 4) / (1 + 1).
        (oracles.alpha_update, FEATURES, LABELS, 0.5, (1.5, 8.5)),
        # 0 - 0.5 (0 - 4) / 1.5 = 4/3. 10 - 0.25 (10 - 4) / 1.25 = 8.8.
        (oracles.alpha_update, np.array([[4.0]]), np.array([[0.5, 0.25, 0.0]]), 1.0, (4 / 3, 8.8)),
        # Class 0: 0.75 * 0 + 0.25 * 4.5. Class 1: 0.75 * 10 + 0.25 * 4.
        (oracles.ema_update, FEATURES, LABELS, 0.25, (1.125, 8.5)),
        # Weighted means 3 + 2 = 5 and 1 + 6 = 7.
        (oracles.ema_update, np.array([[4.0], [8.0]]), SOFT, 0.5, (2.5, 8.5)),
    ],
    ids=["alpha", "alpha of soft targets", "ema", "ema of soft targets"],
)
def test_updates_by_hand(update: Any, features: Any, target: Any, rate: Any, expected: Any) -> None:
    moved = update(features, target, THREE, rate)
    assert_close("centers", moved, np.array([*expected, 7.0])[:, None])


def test_first_centers_by_hand() -> None:
    started, seen = oracles.first_centers(FEATURES, LABELS, THREE, np.array([False, True, False]))
    assert_close("centers", started, np.array([[4.5], [10.0], [7.0]]))
    assert seen.tolist() == [True, True, False]
    _, seen = oracles.first_centers(FEATURES, LABELS, THREE, np.array([False, False, True]))
    assert seen.tolist() == [True, True, True]


def test_a_center_at_its_batch_mean_stays_under_both_rules() -> None:
    started, _ = oracles.first_centers(FEATURES, LABELS, THREE, np.zeros(3, dtype=np.bool_))
    assert_close("alpha", oracles.alpha_update(FEATURES, LABELS, started, 0.5), started)
    assert_close("ema", oracles.ema_update(FEATURES, LABELS, started, 0.5), started)


def test_latent_centers_by_hand() -> None:
    latents = np.array([[[3.0, 0.0], [4.0, 4.0]], [[6.0, 0.0], [8.0, 4.0]]])
    centers = np.array([[0.0, 3.0], [0.0, 4.0]])
    # Two samples: c - 0.5 sum(c - l) / 3. First: 0 + 0.5 * 9 / 3 and 3 - 0.5 * 6 / 3.
    moved = oracles.alpha_update_latents(latents, centers, 0.5)
    assert_close("alpha", moved, np.array([[1.5, 2.0], [2.0, 4.0]]))
    # Means (4.5, 0) and (6, 4).
    moved = oracles.ema_update_latents(latents, centers, 0.5)
    assert_close("ema", moved, np.array([[2.25, 1.5], [3.0, 4.0]]))
    started, seen = oracles.first_centers_latents(latents, centers, np.array([False, True]))
    assert_close("first", started, np.array([[4.5, 0.0], [0.0, 4.0]]))
    assert seen.tolist() == [True, True]


def test_an_empty_batch_costs_nothing_and_moves_nothing() -> None:
    labels: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
    latents, rows, unseen = np.zeros((0, 2, 2)), np.zeros((0, 2)), np.zeros(2, dtype=np.bool_)
    losses = [
        oracles.compactness_loss(latents, ROWS),
        oracles.distribution_loss(rows, labels, ROWS),
        oracles.balance_loss(rows),
        oracles.center_loss(rows, labels, ROWS),
        oracles.cross_entropy(rows, labels),
    ]
    assert losses == [0.0] * 5
    assert_close("alpha", oracles.alpha_update_latents(latents, ROWS, 0.5), ROWS)
    assert_close("ema", oracles.ema_update_latents(latents, ROWS, 0.5), ROWS)
    assert not oracles.first_centers_latents(latents, ROWS, unseen)[1].any()
    assert not oracles.first_centers(rows, labels, ROWS, unseen)[1].any()


@given(st.data(), strategies.sizes())
def test_strategies_give_what_they_are_named_for(data: st.DataObject, of: strategies.Sizes) -> None:
    state = torch.get_rng_state()
    latents = data.draw(strategies.latents_NMD(of))
    assert latents.shape == (of.N, of.M, of.D)
    assert (latents >= 0).all()
    assert data.draw(strategies.intra_weights_NM(of)).shape == (of.N, of.M)
    labels = data.draw(strategies.targets_N(of, ignored=True))
    assert labels.shape == (of.N,)
    assert set(labels.tolist()) <= {*range(of.K), strategies.IGNORE_INDEX}
    soft = data.draw(strategies.soft_targets_NK(of))
    assert soft.shape == (of.N, of.K)
    assert_close("sum of probabilities", soft.sum(1), np.ones(of.N))
    seed = data.draw(strategies.seeds())
    first, second = (strategies.parameters_for(of, seed, regime="small") for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert torch.equal(torch.get_rng_state(), state)
