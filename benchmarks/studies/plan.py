"""What a study asks: rows of settings, each trained with several seeds at one scale."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from fer.options import PRESETS, Options

DEFAULTS = {each.name: each.default for each in fields(Options)}
"""The options of a run that is told nothing."""


@dataclass(frozen=True)
class Scale:
    """How large a study is done: what all its rows have in common.

    Attributes:
        description: What it is, for the reader of a table.
        options: Of every run; the recipe was chosen for the baseline on valid (study `recipe`).
        seeds: How many there are.
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
        overrides: Options in which they differ from the scale's.
        start: The row whose trained backbone, of the same seed, they start from.
    """

    label: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    start: "Row | None" = None

    def settings(self, scale: str) -> dict[str, Any]:
        """Return all options at a scale, but for the seed and where data lie."""
        return {**default_settings(scale), **self.overrides}

    def key(self, scale: str) -> str:
        """Return what its results are found by, the same in every study that has such a row."""
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
    """A question, and the rows that answer it.

    Attributes:
        name: On the command line, and of its table.
        question: In a line.
        rows: In the table's order.
        baseline: The label of the row that all others are compared with.
        by_class: Labels of those that are compared with it class by class too.
        relations: Whether the table says how Intra-W varies over faces.
        notes: What a reader of the list of studies should know besides.
    """

    name: str
    question: str
    rows: Sequence[Row]
    baseline: str = "linear"
    by_class: Sequence[str] = ()
    relations: bool = False
    notes: str = ""

    def __post_init__(self) -> None:
        """Refuse rows that cannot be told apart, or compared."""
        labels = [row.label for row in self.rows]
        if len(set(labels)) < len(labels):
            raise ValueError(f"{self.name}: two rows have the same label")
        for wanted in (self.baseline, *self.by_class):
            if wanted not in labels:
                raise ValueError(f"{self.name}: there is no row {wanted}")

    def select_rows(self, labels: Sequence[str] | None) -> list[Row]:
        """Return the rows of these labels, or all."""
        if labels is None:
            return list(self.rows)
        rows = {row.label: row for row in self.rows}
        if unknown := [label for label in labels if label not in rows]:
            known, given = ("; ".join(each) for each in (rows, unknown))
            raise ValueError(f"--rows must be of: {known}. Got: {given}")
        return [rows[label] for label in labels]
