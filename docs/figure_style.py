"""The style of all figures of these pages, each of which is saved for light and dark pages."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

from cycler import cycler
from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.spines import Spine
from matplotlib.text import Text

LATENTS = (
    "#5b6ee1",
    "#3f9ad6",
    "#2fb3a8",
    "#59b368",
    "#a3b541",
    "#e0a93b",
    "#e5843f",
    "#dc6179",
    "#a668c9",
)
"""A color for each of the nine latents, as in the picture of the architecture."""

INK = {"light": "#2b3242", "dark": "#cfd5e0"}

BASELINE = "#8a92a6"
"""Color of the baseline of a comparison, on light and on dark pages."""

STYLE = {
    "axes.grid": False,
    "axes.prop_cycle": cycler(color=[LATENTS[index] for index in (0, 6, 2, 7, 8, 3, 5, 1, 4)]),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "fdrl-layers",
}


def use(gallery_conf: Mapping[str, Any] | None = None, fname: str | None = None) -> None:
    """Set our style for all following figures; sphinx-gallery calls this before each tutorial."""
    plt.rcdefaults()
    plt.rcParams.update(STYLE)


def save_both(figure: Figure, path: Path, **options: Any) -> tuple[Path, Path]:
    """Save a figure, transparent, as NAME-light and NAME-dark next to `path`; return the paths."""
    names = tuple(path.with_stem(f"{path.stem}-{theme}") for theme in INK)
    # Ticks are created when a figure is first drawn.
    figure.draw_without_rendering()
    inked = list(_find_inked(figure))
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    for theme, name in zip(INK, names, strict=True):
        for artist, setter in inked:
            getattr(artist, setter)(INK[theme])
        for axes in figure.axes:
            axes.tick_params(which="both", color=INK[theme], labelcolor=INK[theme])
        figure.savefig(name, transparent=True, **options)
    return names[0], names[1]


def _find_inked(figure: Figure) -> Iterator[tuple[Artist, str]]:
    """Yield the artists in black, the color of ink, with the method that changes their color."""
    for artist in figure.findobj():
        if isinstance(artist, Text) and artist.get_gid() != "fixed":
            if same_color(artist.get_color(), "black"):
                yield artist, "set_color"
        elif isinstance(artist, Line2D):
            if same_color(artist.get_color(), "black"):
                yield artist, "set_color"
            if artist.get_marker() not in ("", "None", None) and same_color(
                artist.get_markeredgecolor(), "black"
            ):
                yield artist, "set_markeredgecolor"
        elif isinstance(artist, Spine):
            yield artist, "set_edgecolor"
        elif isinstance(artist, Legend):
            artist.get_frame().set_alpha(0)


def scrape(block: Any, variables: Mapping[str, Any], gallery_conf: Mapping[str, Any]) -> str:
    """Save the figures of a tutorial's block for both themes; return the markup that shows them."""
    shown = []
    for number in plt.get_fignums():
        figure = plt.figure(number)
        alt = figure.get_label() or _title(figure)
        path = Path(next(variables["image_path_iterator"]))
        light, dark = save_both(figure, path, dpi=160)
        # sphinx-gallery makes a thumbnail of this file.
        light.replace(path)
        for name, theme in ((path, "light"), (dark, "dark")):
            place = name.relative_to(gallery_conf["src_dir"]).as_posix()
            shown.append(
                f".. container:: figure-box only-{theme}\n\n"
                f"   .. image:: /{place}\n      :alt: {alt}\n"
            )
    plt.close("all")
    return "\n" + "\n".join(shown)


def _title(figure: Figure) -> str:
    titles = [axes.get_title() or axes.get_ylabel() for axes in figure.axes]
    return "Plot: " + "; ".join(title.replace("\n", " ") for title in titles if title)
