"""The figures of the concept pages, drawn when the documentation is built."""

from pathlib import Path

import torch
from matplotlib import pyplot as plt

import figure_style
from fdrl_layers import FDRLHead, FDRLLoss
from fdrl_layers.layers import GateInit, Reduction

HEADS: dict[str, tuple[Reduction, GateInit]] = {
    "sum, gates from 1 / 2": ("sum", "linear"),
    "mean, gates from 1 / 2": ("mean", "linear"),
    "sum": ("sum", "uniform"),
}
"""Settings of the heads that are compared, by their name in the legend."""
STEPS, BATCH, WIDTH = 300, 32, 64


def write(folder: Path) -> None:
    """Draw all figures to `folder`, each for light pages and for dark ones."""
    folder.mkdir(parents=True, exist_ok=True)
    figure_style.use()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        draw_reductions(folder / "reductions.svg")
        draw_tanh(folder / "tanh.svg")


def train_and_track(reduction: Reduction, gate_init: GateInit) -> tuple[list[float], list[float]]:
    """Train a head on seven clusters of points; return Intra-W and the saturated share by step."""
    head = FDRLHead(WIDTH, 7, reduction=reduction, gate_init=gate_init)
    criterion = FDRLLoss(7)
    adam = torch.optim.Adam([*head.parameters()], 1e-3, betas=(0.5, 0.999))
    clusters = torch.randn(7, WIDTH)
    weights, saturated = [], []
    for _ in range(STEPS):
        labels = torch.randint(7, (BATCH,))
        output = head(clusters[labels] + torch.randn(BATCH, WIDTH))
        adam.zero_grad()
        criterion(output, labels).total.backward()
        adam.step()
        assert output.inter_weights is not None
        others = output.inter_weights.detach()[:, ~torch.eye(9, dtype=torch.bool)]
        weights.append(output.intra_weights.mean().item())
        saturated.append(100 * (others > 0.999).float().mean().item())
    return weights, saturated


def draw_reductions(file: Path) -> None:
    """Draw Intra-W and the saturated share of Inter-W during training."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3))
    for label, how in HEADS.items():
        weights, saturated = train_and_track(*how)
        left.plot(weights, label=label)
        right.plot(saturated, label=label)
    left.axhline(1 / 9, color="black", linestyle=":", linewidth=1)
    left.annotate("target 1 / 9", (STEPS, 1 / 9), (0, -12), textcoords="offset points", ha="right")
    left.set(yscale="log", xlabel="step", title="mean Intra-W", ylim=(0.05, 100))
    right.set(xlabel="step", title="Inter-W above 0.999, in %", ylim=(-3, 103))
    left.legend()
    figure_style.save_both(figure, file)
    plt.close(figure)


def measure_distances(reduction: Reduction, gate_init: GateInit) -> torch.Tensor:
    """Return the distances between the messages of a new head."""
    head = FDRLHead(512, 7, reduction=reduction, gate_init=gate_init)
    inter = head.reconstruction.inter
    assert head.reconstruction.intra is not None
    assert inter is not None
    with torch.no_grad():
        features, _ = head.reconstruction.intra(head.decomposition(torch.randn(64, 512)))
        messages = torch.einsum("nmd,med->nme", features, inter.weight) + inter.bias
        apart = torch.cdist(messages.relu(), messages.relu())
    return apart[:, ~torch.eye(9, dtype=torch.bool)].flatten()


def draw_tanh(file: Path) -> None:
    """Draw tanh, its slope, and where the distances of a new head lie."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3))
    near = torch.linspace(0, 8, 200)
    left.plot(near, near.tanh(), color="black", label="tanh")
    left.plot(near, 1 - near.tanh().square(), color="black", linestyle="--", label="its slope")
    left.set(xlabel="distance of two messages", title="equation 9")
    left.legend()
    for label, how in HEADS.items():
        right.hist(measure_distances(*how).log10().numpy(), bins=40, label=label, alpha=0.9)
    right.axvline(torch.tensor(9.0).log10().item(), color="black", linestyle=":", linewidth=1)
    right.set_xticks([-1, 0, 1, 2], ["0.1", "1", "10", "100"])
    right.set(xlabel="distance", title="distances in a new head; dotted: flat beyond", yticks=[])
    right.legend()
    figure_style.save_both(figure, file)
    plt.close(figure)
