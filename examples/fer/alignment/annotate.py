"""Draw the prediction of a model for a face: the face, its probabilities and its Intra-W."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from fer.evaluation import figures

COLOR = "#1f77b4"
MUTED_COLOR = "#b5c7d8"


def draw_prediction(
    path: Path,
    face: Tensor,
    title: str,
    probabilities: Mapping[str, float],
    intra_weights: Sequence[float] | None,
) -> None:
    """Draw a face (3, H, W) in [-1, 1] with its prediction."""
    panels = 2 if intra_weights is None else 3
    figure = Figure(figsize=(3.4 * panels, 3.2), layout="constrained")
    axes = figure.subplots(1, panels)
    figure.suptitle(title)
    axes[0].imshow((face.permute(1, 2, 0).float() / 2 + 0.5).clamp(0, 1).numpy())
    axes[0].axis("off")
    axes[0].set_title("what the network sees", fontsize="medium")
    _draw_bars(axes[1], list(probabilities), list(probabilities.values()), "probability", "{:.2f}")
    axes[1].set_xlim(0, 1.2)
    if intra_weights is not None:
        latents = [str(j + 1) for j in range(len(intra_weights))]
        _draw_bars(axes[2], latents, intra_weights, "Intra-W of each latent", "{:#.3g}")
        axes[2].set_xlim(0, 1.25 * max(*intra_weights, 1e-9))
    figures.save(figure, path)


def _draw_bars(
    axes: Axes, names: Sequence[str], values: Sequence[float], title: str, number_format: str
) -> None:
    largest = max(values)
    colors = [COLOR if value == largest else MUTED_COLOR for value in values]
    bars = axes.barh(range(len(names)), values, color=colors)
    axes.bar_label(
        bars, [number_format.format(value) for value in values], padding=2, fontsize="small"
    )
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.set_title(title, fontsize="medium")
