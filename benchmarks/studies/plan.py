"""What a study asks: rows of settings, each trained with several seeds at one scale."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

from fer.options import PRESETS, Options

DEFAULTS = {each.name: each.default for each in fields(Options)}
"""The options of a run that is told nothing."""


@dataclass(frozen=True)
class Scale:
    """How large a study is done: what all its rows have in common.

    Attributes:
        says: What it is, for the reader of a table.
        options: Of every run; the recipe was chosen for the baseline on valid (`recipe.py`).
        seeds: How many there are.
    """

    says: str
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


def ordinary(scale: str) -> dict[str, Any]:
    """Return the options of FDRL at a scale, which a row has where it says nothing else.

    They are the paper's numbers, but for the recipe and a mean in place of the sum in equation 4.
    Gates start as PyTorch's layers do: they were trained so before there was a choice.
    """
    return {
        **DEFAULTS,
        "dataset": "ferplus",
        "reduction": "mean",
        "gate_init": "linear",
        **SCALES[scale].options,
    }


@dataclass(frozen=True)
class Row:
    """Settings that a table has a line for.

    Attributes:
        label: What the table calls them.
        changes: Options in which they differ from the scale's.
        start: The row whose trained backbone, of the same seed, they start from.
    """

    label: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    start: "Row | None" = None

    def settings(self, scale: str) -> dict[str, Any]:
        """Return all options at a scale, but for the seed and where data lie."""
        return {**ordinary(scale), **self.changes}

    def key(self, scale: str) -> str:
        """Return the name of its files at a scale, the same in every study that has such a row."""
        known = ordinary(scale)
        said = [
            f"{name}={value}"
            for name, value in sorted(self.changes.items())
            if value != known[name]
        ] or ["fdrl"]
        if self.start is not None:
            said.append(f"from[{self.start.key(scale)}]")
        return ",".join(said).replace("_", "-")


@dataclass(frozen=True)
class Study:
    """A question, and the rows that answer it.

    Attributes:
        name: Of its script, and of its table.
        question: In a line.
        rows: In the table's order.
        against: The label of the row that all others are compared with.
        by_class: Labels of those that are compared with it class by class too.
    """

    name: str
    question: str
    rows: Sequence[Row]
    against: str
    by_class: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse rows that cannot be told apart, or compared."""
        labels = [row.label for row in self.rows]
        if len(set(labels)) < len(labels):
            raise ValueError(f"{self.name}: two rows have the same label")
        for wanted in (self.against, *self.by_class):
            if wanted not in labels:
                raise ValueError(f"{self.name}: there is no row {wanted}")

    def chosen(self, labels: Sequence[str] | None) -> list[Row]:
        """Return the rows of these labels, or all."""
        if labels is None:
            return list(self.rows)
        rows = {row.label: row for row in self.rows}
        if unknown := [label for label in labels if label not in rows]:
            raise ValueError(f"--rows must be of {', '.join(rows)}; got {', '.join(unknown)}")
        return [rows[label] for label in labels]


LINEAR = Row("linear", {"head": "linear"})
FDRL = Row("FDRL")
AS_PRINTED = Row("FDRL as printed", {"reduction": "sum"})
DRAWN = {"dataset": "synthetic", "faces": 12_800}
LINEAR_DRAWN = Row("linear, drawn faces", {"head": "linear", **DRAWN})
