"""The paper's equations as NumPy loops in float64: what every other test is held against.

Written from section 3 of the paper and from Wen et al. (2016) alone, and it shares no code with
the package, so that it can be read beside the PDF. Letters: i sample, j and m latents, k class;
sizes N samples, P basic-feature width, M latents, D latent width, K classes. The parameters are
stacked, one layer per latent: weight (M, out, in) and bias (M, out). The paper's `W_j^T x` is
`weight[j] @ x`; it prints no bias, so `None` is the printed form.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
Seen = NDArray[np.bool_]


# The network: equations 1, 3, 4 and 7 to 12


def feature_decomposition(x: Array, weight: Array, bias: Array | None) -> Array:
    """Equation 1: l_ij = relu(W_dj^T x_i). (N, P) to (N, M, D)."""
    latents = np.zeros((x.shape[0], weight.shape[0], weight.shape[1]))
    for i in range(x.shape[0]):
        for j in range(weight.shape[0]):
            latents[i, j] = _relu(_linear(weight, bias, j, x[i]))
    return latents


def intra_relation(
    latents: Array, weight: Array, bias: Array | None, reduction: str
) -> tuple[Array, Array]:
    """Equations 3, 4 and 7. (N, M, D) to the features f (N, M, D) and Intra-W (N, M).

    "sum" is equation 4 as printed, "mean" divides it by D, "share" by its sum over the M latents.
    """
    num_samples, num_latents, width = latents.shape
    features = np.zeros(latents.shape)
    intra_w = np.zeros((num_samples, num_latents))
    for i in range(num_samples):
        scores = [_linear(weight, bias, j, latents[i, j]) for j in range(num_latents)]
        for j in range(num_latents):
            gates = [_sigmoid(score) for score in scores[j]]  # eq. 3
            norm = sum(abs(gate) for gate in gates)  # eq. 4
            if reduction == "sum":
                intra_w[i, j] = norm
            elif reduction == "mean":
                intra_w[i, j] = norm / width
            elif reduction == "share":
                intra_w[i, j] = _share(scores, j)
            else:
                raise ValueError(f"reduction: expected 'sum', 'mean' or 'share', got {reduction!r}")
            features[i, j] = intra_w[i, j] * latents[i, j]  # eq. 7
    return features, intra_w


def messages(features: Array, weight: Array, bias: Array | None) -> Array:
    """Equation 8: g_ij = relu(W_ej^T f_ij). (N, M, D) to (N, M, D)."""
    found = np.zeros((features.shape[0], weight.shape[0], weight.shape[1]))
    for i in range(features.shape[0]):
        for j in range(weight.shape[0]):
            found[i, j] = _relu(_linear(weight, bias, j, features[i, j]))
    return found


def inter_relation(features: Array, weight: Array, bias: Array | None) -> tuple[Array, Array]:
    """Equations 8, 9 and 10. f (N, M, D) to f-hat (N, M, D) and Inter-W (N, M, M)."""
    num_samples, num_latents, _ = features.shape
    g = messages(features, weight, bias)
    inter_aware = np.zeros((num_samples, num_latents, weight.shape[1]))
    inter_w = np.zeros((num_samples, num_latents, num_latents))
    for i in range(num_samples):
        for j in range(num_latents):
            for m in range(num_latents):
                if j != m:
                    inter_w[i, j, m] = math.tanh(math.dist(g[i, j], g[i, m]))  # eq. 9
                inter_aware[i, j] += inter_w[i, j, m] * g[i, m]  # eq. 10
    return inter_aware, inter_w


def feature_reconstruction(
    latents: Array,
    intra_weight: Array | None,
    intra_bias: Array | None,
    inter_weight: Array | None,
    inter_bias: Array | None,
    delta: float,
    reduction: str,
    self_feature: str = "intra",
) -> tuple[Array, Array, Array | None]:
    """Equations 11 and 12. (N, M, D) to the embedding y (N, D), Intra-W and Inter-W (or None).

    A missing `intra_weight` or `inter_weight` is a cross in Table 2: without Intra-RM f_j = l_j and
    Intra-W is 1; without Inter-RM y_j = f_j, which is delta = 1. With `self_feature` "message",
    which is not the paper's, equation 11 reads y_j = delta g_j + (1 - delta) f-hat_j.
    """
    num_samples, num_latents, width = latents.shape
    features, intra_w = latents, np.ones((num_samples, num_latents))
    if intra_weight is not None:
        features, intra_w = intra_relation(latents, intra_weight, intra_bias, reduction)
    inter_aware, inter_w = np.zeros(latents.shape), None
    if inter_weight is None:
        delta = 1.0
    else:
        inter_aware, inter_w = inter_relation(features, inter_weight, inter_bias)
        if self_feature == "message":
            features = messages(features, inter_weight, inter_bias)
    embedding = np.zeros((num_samples, width))
    for i in range(num_samples):
        for j in range(num_latents):
            embedding[i] += delta * features[i, j] + (1 - delta) * inter_aware[i, j]
    return embedding, intra_w, inter_w


@dataclass(frozen=True)
class Head:
    """Everything the head computes, under the names of the package's `FDRLOutput`."""

    logits: Array
    embedding: Array
    latents: Array
    intra_weights: Array
    inter_weights: Array | None


def fdrl_head(
    x: Array,
    *,
    decomposition_weight: Array,
    decomposition_bias: Array | None = None,
    intra_weight: Array | None = None,
    intra_bias: Array | None = None,
    inter_weight: Array | None = None,
    inter_bias: Array | None = None,
    classifier_weight: Array,
    classifier_bias: Array | None = None,
    delta: float = 0.5,
    reduction: str = "sum",
    self_feature: str = "intra",
) -> Head:
    """Figure 2 (b) to (d): decompose, reconstruct, predict. (N, P) to logits (N, K) and more."""
    latents = feature_decomposition(x, decomposition_weight, decomposition_bias)
    embedding, intra_w, inter_w = feature_reconstruction(
        latents, intra_weight, intra_bias, inter_weight, inter_bias, delta, reduction, self_feature
    )
    logits = np.zeros((x.shape[0], classifier_weight.shape[0]))
    for i in range(x.shape[0]):
        logits[i] = classifier_weight @ embedding[i]
        if classifier_bias is not None:
            logits[i] += classifier_bias
    return Head(logits, embedding, latents, intra_w, inter_w)


# The losses: equations 2, 5, 6 and 13. A mean over no samples is 0.


def compactness_loss(latents: Array, centers: Array) -> float:
    """Equation 2: mean over i of the sum over j of ||l_ij - c_j||^2. Centers (M, D)."""
    total = 0.0
    for i in range(latents.shape[0]):
        for j in range(latents.shape[1]):
            total += _squared_distance(latents[i, j], centers[j])
    return _mean(total, latents.shape[0])


def distribution_loss(
    intra_w: Array,
    target: NDArray[Any],
    centers: Array,
    ignore_index: int = -100,
    weight: Array | None = None,
) -> float:
    """Equation 5: mean over i of ||w_i - w_ki||^2. Centers (K, M).

    Labels (N,) equal to `ignore_index` do not count. Soft targets (N, K) give the expectation over
    the classes, sum_k p_ik ||w_i - w_k||^2. Weights (K,) as those of `cross_entropy`.
    """
    belongs, count = _membership(target, centers.shape[0], ignore_index)
    total = 0.0
    for i in range(intra_w.shape[0]):
        for k in range(centers.shape[0]):
            factor = 1.0 if weight is None else weight[k]
            total += factor * belongs[i, k] * _squared_distance(intra_w[i], centers[k])
    return _mean(total, _mass(target, belongs, count, weight))


def intra_spread(
    intra_w: Array, target: NDArray[Any], ignore_index: int = -100
) -> tuple[float, float, float]:
    """Spread, eta squared and effective latents of Intra-W; every loop as `docs/api` has it."""
    num_samples, num_latents = intra_w.shape
    means = [_mean(sum(map(float, intra_w[:, j])), num_samples) for j in range(num_latents)]
    variances = [
        sum((float(w) - means[j]) ** 2 for w in intra_w[:, j]) / num_samples
        for j in range(num_latents)
    ]
    deviation = sum(math.sqrt(v) for v in variances) / num_latents
    size = sum(abs(float(w)) for w in intra_w.ravel()) / (num_samples * num_latents)
    counted = [i for i in range(num_samples) if target[i] != ignore_index]
    within, total = 0.0, 0.0
    for j in range(num_latents):
        overall = sum(float(intra_w[i, j]) for i in counted) / len(counted)
        total += sum((float(intra_w[i, j]) - overall) ** 2 for i in counted)
        for k in {int(target[i]) for i in counted}:
            own = [float(intra_w[i, j]) for i in counted if target[i] == k]
            within += sum((w - sum(own) / len(own)) ** 2 for w in own)
    shares = [v / sum(variances) for v in variances]
    entropy = -sum(p * math.log(p) for p in shares if p > 0)
    explained = 1 - within / total if total else 0.0
    return deviation / size, explained, math.exp(entropy)


def balance_loss(intra_w: Array) -> float:
    """Equation 6: ||w-bar - w_u||_1, w-bar the batch's mean Intra-W and w_u = (1/M, ..., 1/M)."""
    num_samples, num_latents = intra_w.shape
    if num_samples == 0:
        return 0.0
    loss = 0.0
    for j in range(num_latents):
        mean = sum(float(intra_w[i, j]) for i in range(num_samples)) / num_samples
        loss += abs(mean - 1 / num_latents)
    return loss


def center_loss(
    features: Array, target: NDArray[Any], centers: Array, ignore_index: int = -100
) -> float:
    """Wen et al. (2016), equation 2, as a mean over the batch: half of ||x_i - c_yi||^2."""
    return distribution_loss(features, target, centers, ignore_index) / 2


def cross_entropy(
    logits: Array,
    target: NDArray[Any],
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    weight: Array | None = None,
) -> float:
    """L_cls: mean over i of -sum_k q_ik log softmax(z_i)_k.

    q = (1 - label_smoothing) p + label_smoothing / K, with p one-hot or the soft target. With
    weights (K,), as PyTorch: mean of -sum_k w_k q_ik log softmax(z_i)_k; with labels over the sum
    of w_yi.
    """
    num_classes = logits.shape[1]
    belongs, count = _membership(target, num_classes, ignore_index)
    total = 0.0
    for i in range(logits.shape[0]):
        if target.ndim == 1 and target[i] == ignore_index:
            continue
        largest = max(logits[i])  # subtracted so that exp cannot overflow
        log_sum = largest + math.log(sum(math.exp(z - largest) for z in logits[i]))
        for k in range(num_classes):
            wanted = (1 - label_smoothing) * belongs[i, k] + label_smoothing / num_classes
            factor = 1.0 if weight is None else weight[k]
            total -= factor * wanted * (logits[i, k] - log_sum)
    return _mean(total, _mass(target, belongs, count, weight))


def _mass(target: NDArray[Any], belongs: Array, count: float, weight: Array | None) -> float:
    """What a weighted sum over samples is divided by."""
    if weight is None or target.ndim == 2:
        return count
    return float(sum(belongs[i, k] * weight[k] for i, k in np.ndindex(*belongs.shape)))


@dataclass(frozen=True)
class JointLoss:
    """Equation 13 and its four terms before weighting, as in the package's `FDRLLossOutput`."""

    total: float
    classification: float
    compactness: float
    balance: float
    distribution: float


def joint_loss(
    head: Head,
    target: NDArray[Any],
    latent_centers: Array,
    class_centers: Array,
    *,
    lambda_compactness: float = 1e-4,
    lambda_balance: float = 1.0,
    lambda_distribution: float = 1e-4,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    weight: Array | None = None,
    distribution_weight: Array | None = None,
) -> JointLoss:
    """Equation 13: L = L_cls + lambda_1 L_C + lambda_2 L_B + lambda_3 L_D."""
    classification = cross_entropy(head.logits, target, label_smoothing, ignore_index, weight)
    compactness = compactness_loss(head.latents, latent_centers)
    balance = balance_loss(head.intra_weights)
    distribution = distribution_loss(
        head.intra_weights, target, class_centers, ignore_index, distribution_weight
    )
    total = (
        classification
        + lambda_compactness * compactness
        + lambda_balance * balance
        + lambda_distribution * distribution
    )
    return JointLoss(total, classification, compactness, balance, distribution)


# The centers: how c_j and w_k follow the batch. Each returns new centers, its input stays as it is.


def alpha_update(
    features: Array, target: NDArray[Any], centers: Array, alpha: float, ignore_index: int = -100
) -> Array:
    """Wen et al. (2016), equation 4: c_j <- c_j - alpha sum_{i: y_i = j} (c_j - x_i) / (1 + n_j).

    With soft targets the sum and n_j weigh sample i by p_ij.
    """
    belongs, _ = _membership(target, centers.shape[0], ignore_index)
    moved = centers.copy()
    for j in range(centers.shape[0]):
        numerator = np.zeros(centers.shape[1])
        count = 0.0
        for i in range(features.shape[0]):
            numerator += belongs[i, j] * (centers[j] - features[i])
            count += belongs[i, j]
        moved[j] = centers[j] - alpha * numerator / (1 + count)
    return moved


def ema_update(
    features: Array, target: NDArray[Any], centers: Array, rate: float, ignore_index: int = -100
) -> Array:
    """c_j <- (1 - rate) c_j + rate mean_{i: y_i = j} x_i; a class absent from the batch stays."""
    means, present = _class_means(features, target, centers.shape[0], ignore_index)
    moved = centers.copy()
    for j in range(centers.shape[0]):
        if present[j]:
            moved[j] = (1 - rate) * centers[j] + rate * means[j]
    return moved


def first_centers(
    features: Array, target: NDArray[Any], centers: Array, seen: Seen, ignore_index: int = -100
) -> tuple[Array, Seen]:
    """A class seen for the first time starts at its batch mean; also returns what is seen now.

    Both rules above leave such a center where it is, so it matters not whether they run as well.
    """
    means, present = _class_means(features, target, centers.shape[0], ignore_index)
    started = centers.copy()
    for j in range(centers.shape[0]):
        if present[j] and not seen[j]:
            started[j] = means[j]
    return started, seen | present


def alpha_update_latents(latents: Array, centers: Array, alpha: float) -> Array:
    """`alpha_update` for the centers (M, D) of equation 2: each sample has each latent, n_j = N."""
    rows = [
        alpha_update(latents[:, j], _all_of_one_class(latents), centers[j : j + 1], alpha)
        for j in range(latents.shape[1])
    ]
    return np.concatenate(rows)


def ema_update_latents(latents: Array, centers: Array, rate: float) -> Array:
    """`ema_update` for the centers (M, D) of equation 2."""
    rows = [
        ema_update(latents[:, j], _all_of_one_class(latents), centers[j : j + 1], rate)
        for j in range(latents.shape[1])
    ]
    return np.concatenate(rows)


def first_centers_latents(latents: Array, centers: Array, seen: Seen) -> tuple[Array, Seen]:
    """`first_centers` for the centers (M, D) of equation 2. `seen` is (M,)."""
    started, now_seen = centers.copy(), seen.copy()
    for j in range(latents.shape[1]):
        label = _all_of_one_class(latents)
        row, row_seen = first_centers(latents[:, j], label, centers[j : j + 1], seen[j : j + 1])
        started[j], now_seen[j] = row[0], row_seen[0]
    return started, now_seen


# Small parts


def _linear(weight: Array, bias: Array | None, j: int, x: Array) -> Array:
    product: Array = weight[j] @ x
    return product if bias is None else product + bias[j]


def _relu(values: Array) -> Array:
    return np.array([max(float(value), 0.0) for value in values])


def _sigmoid(score: float) -> float:
    # Two forms of 1 / (1 + e^-s): neither takes the exponential of a large number.
    if score >= 0:
        return 1 / (1 + math.exp(-score))
    return math.exp(score) / (1 + math.exp(score))


def _share(scores: list[Array], j: int) -> float:
    # Gates below e^-745 are 0 in float64, and 0 / 0 is no share; a common factor cancels, so it is
    # taken out of all gates first.
    logs = [[min(s, 0.0) - math.log1p(math.exp(-abs(s))) for s in row] for row in scores]
    largest = max(max(row) for row in logs)
    sums = [sum(math.exp(log - largest) for log in row) for row in logs]
    return sums[j] / sum(sums)


def _squared_distance(a: Array, b: Array) -> float:
    return sum((float(p) - float(q)) ** 2 for p, q in zip(a, b, strict=True))


def _mean(total: float, count: float) -> float:
    return float(total) / count if count > 0 else 0.0


def _membership(target: NDArray[Any], num_classes: int, ignore_index: int) -> tuple[Array, int]:
    """How much sample i belongs to class k, (N, K), and how many samples count."""
    if target.ndim == 2:
        return target.astype(np.float64), target.shape[0]
    belongs = np.zeros((target.shape[0], num_classes))
    count = 0
    for i in range(target.shape[0]):
        if target[i] != ignore_index:
            belongs[i, target[i]] = 1.0
            count += 1
    return belongs, count


def _class_means(
    features: Array, target: NDArray[Any], num_classes: int, ignore_index: int
) -> tuple[Array, Seen]:
    """The batch's mean feature of each class (K, F), and which classes are there at all."""
    belongs, _ = _membership(target, num_classes, ignore_index)
    means = np.zeros((num_classes, features.shape[1]))
    present = np.zeros(num_classes, dtype=np.bool_)
    for j in range(num_classes):
        count = sum(float(belongs[i, j]) for i in range(features.shape[0]))
        if count > 0:
            present[j] = True
            for i in range(features.shape[0]):
                means[j] += belongs[i, j] * features[i] / count
    return means, present


def _all_of_one_class(latents: Array) -> Integers:
    return np.zeros(latents.shape[0], dtype=np.int64)
