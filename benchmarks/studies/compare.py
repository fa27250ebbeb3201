"""Compare two rows of a study by the differences of runs with the same seed."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

from scipy.stats import t


@dataclass(frozen=True)
class Difference:
    """The mean of differences over seeds and its 95 % confidence interval.

    Attributes:
        mean: Mean of the differences.
        half_width: Half the width of the interval; NaN for a single seed.
        seeds: Number of seeds.
    """

    mean: float
    half_width: float
    seeds: int

    def __str__(self) -> str:
        return (
            f"{self.mean:+.2f} ± {self.half_width:.2f}" if self.seeds > 1 else f"{self.mean:+.2f}"
        )

    @property
    def is_significant(self) -> bool:
        """Whether the interval excludes zero."""
        return abs(self.mean) > self.half_width


def compare_scores(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference:
    """Compare scores over the seeds that both rows have.

    The interval is Student's, because there are few seeds.

    Raises:
        ValueError: if no seed is in both.
    """
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        raise ValueError("no seed is in both rows")
    found = [ours[seed] - theirs[seed] for seed in seeds]
    n = len(found)
    half = float(t.ppf(0.975, n - 1)) * stdev(found) / sqrt(n) if n > 1 else float("nan")
    return Difference(fmean(found), half, n)
