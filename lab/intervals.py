"""Intervals and tests: the one place where an uncertainty is computed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import fsum, inf, sqrt
from statistics import fmean, stdev
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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


MOST_EXACT = 16
"""Differences up to which every pattern of signs is tried; beyond, as many are drawn, from a fixed seed."""


def sign_flip_p(differences: Sequence[float]) -> float:
    """The two-sided p-value of paired differences having mean zero: the paired permutation test.

    Under the hypothesis that both of a pair come from one distribution each difference could as well have
    the other sign; this holds at any sample size and for any noise (Fisher, "The Design of Experiments",
    1935, section 21; with drawn patterns as Phipson and Smyth, SAGMB 9, 2010, count them).

    Returns:
        1.0 for fewer than two differences.
    """
    import numpy as np

    if len(differences) < 2:
        return 1.0
    sums = np.abs(_sign_patterns(len(differences)) @ np.array(differences, dtype=float))
    extreme = int((sums >= abs(fsum(differences)) * (1 - 1e-9)).sum())
    exact = len(differences) <= MOST_EXACT
    return extreme / len(sums) if exact else (extreme + 1) / (len(sums) + 1)


@lru_cache(maxsize=8)
def _sign_patterns(count: int) -> "NDArray[np.float64]":
    """Rows of 1 and -1."""
    import numpy as np

    if count <= MOST_EXACT:
        bits = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
    else:
        bits = np.random.default_rng(0).integers(2, size=(2**MOST_EXACT, count))
    signs: NDArray[np.float64] = 1.0 - 2.0 * bits.astype(np.float64)
    return signs
