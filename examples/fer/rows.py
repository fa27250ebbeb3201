"""Rows of tables: runs that differ in a few options."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        label: Its label in the table.
        overrides: Options that differ from those that all rows share.
    """

    label: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
