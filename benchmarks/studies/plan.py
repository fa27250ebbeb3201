"""Studies: rows of settings, each of which is trained with several seeds at one scale."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from fer import rows
from fer.options import PRESETS, Options

DEFAULTS = {each.name: each.default for each in fields(Options)}
"""The default options of a run."""


@dataclass(frozen=True)
class Scale:
    """The scale of a study: the options that all its rows share.

    Attributes:
        description: Description for the reader of a table.
        options: Options of every run; the recipe was tuned for the baseline on valid (`recipe`).
        seeds: Number of seeds.
    """

    description: str
    options: Mapping[str, Any]
    seeds: int


SCALES: Mapping[str, Scale] = {
    "cpu": Scale(
        "a ResNet-10 of 16 channels with a small stem, 42 x 42 crops",
        {
            "backbone": "resnet10",
            "width": 16,
            "small_stem": True,
            "image_size": 42,
            "epochs": 4,
            "lr": 5e-3,
            "channels_last": True,
        },
        seeds=3,
    ),
    "gpu": Scale(
        "a ResNet-18 with a small stem, 64 x 64 crops",
        {**PRESETS["strong"], "channels_last": True},
        seeds=5,
    ),
}


def default_settings(scale: str) -> dict[str, Any]:
    """Return the options of FDRL at a scale, which a row uses unless it overrides them.

    They are the paper's numbers, except for the recipe and a mean instead of the sum in equation 4.
    Gates are initialized as PyTorch's layers, the only choice when the first runs were trained.
    """
    return {
        **DEFAULTS,
        "dataset": "ferplus",
        "reduction": "mean",
        "gate_init": "linear",
        **SCALES[scale].options,
    }


@dataclass(frozen=True)
class Row(rows.Row):
    """A row of a study.

    Attributes:
        start: The row whose trained backbone of the same seed the runs start from.
    """

    start: "Row | None" = None

    def settings(self, scale: str) -> dict[str, Any]:
        """Return all options at a scale except the seed and the location of the data."""
        return {**default_settings(scale), **self.overrides}

    def key(self, scale: str) -> str:
        """Return the key of its results, which is the same in all studies with such a row."""
        defaults = default_settings(scale)
        parts = [
            f"{name}={value}"
            for name, value in sorted(self.overrides.items())
            if value != defaults[name]
        ] or ["fdrl"]
        if self.start is not None:
            parts.append(f"from[{self.start.key(scale)}]")
        return ",".join(parts).replace("_", "-")


@dataclass(frozen=True)
class Study:
    """A question and the rows that answer it.

    Attributes:
        name: Name on the command line and of its table.
        question: The question, in one line.
        rows: The rows in the order of the table.
        baseline: The label of the row with which all others are compared.
        by_class: Labels of the rows that are also compared with it class by class.
        relations: Whether the table shows how Intra-W varies over faces.
        notes: Further information for readers of the list of studies.
    """

    name: str
    question: str
    rows: Sequence[Row]
    baseline: str = "linear"
    by_class: Sequence[str] = ()
    relations: bool = False
    notes: str = ""

    def __post_init__(self) -> None:
        """Raise `ValueError` if labels are not unique or a compared row does not exist."""
        labels = [row.label for row in self.rows]
        if len(set(labels)) < len(labels):
            raise ValueError(f"{self.name}: two rows have the same label")
        for wanted in (self.baseline, *self.by_class):
            if wanted not in labels:
                raise ValueError(f"{self.name}: there is no row {wanted}")

    def select_rows(self, labels: Sequence[str] | None) -> list[Row]:
        """Return the rows with these labels, or all rows if `labels` is None."""
        if labels is None:
            return list(self.rows)
        rows = {row.label: row for row in self.rows}
        if unknown := [label for label in labels if label not in rows]:
            known, given = ("; ".join(each) for each in (rows, unknown))
            raise ValueError(f"--rows must be of: {known}. Got: {given}")
        return [rows[label] for label in labels]
