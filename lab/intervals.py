"""Intervals: the one place where an uncertainty is computed."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt
from statistics import fmean, stdev


@dataclass(frozen=True)
class Estimate:
    """A mean with its two-sided interval.

    Attributes:
        n: the number of values behind it.
    """

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.1f} [{self.low:.1f}, {self.high:.1f}] n={self.n}"


def t_interval(values: Sequence[float], confidence: float, comparisons: int = 1) -> Estimate:
    """The mean and its Student t interval: `mean ± t * s / sqrt(n)` with n - 1 degrees of freedom.

    Assumes independent values and a mean that is near normal (Student, "The probable error of a mean",
    Biometrika 6, 1908). For differences of pairs this is the paired t interval.

    Args:
        confidence: the chance, in (0, 1), that all of `comparisons` such intervals cover their means
            (Bonferroni: each is made at `1 - (1 - confidence) / comparisons`).

    Returns:
        The estimate; with a single value the interval is unbounded.

    Raises:
        statistics.StatisticsError: there are no values.
    """
    from scipy.stats import t

    mean, n = fmean(values), len(values)
    if n < 2:
        return Estimate(mean, -inf, inf, n)
    tail = (1 - confidence) / comparisons / 2
    half = float(t.isf(tail, n - 1)) * stdev(values) / sqrt(n)
    return Estimate(mean, mean - half, mean + half, n)
