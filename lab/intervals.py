"""Intervals and tests: the one place where an uncertainty is computed."""

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


SIGN_FLIPS = 2**16
"""Sign patterns tried: all of them for up to 16 differences, else as many at random, from a fixed seed."""


def sign_flip_p(differences: Sequence[float]) -> float:
    """The two-sided p-value of paired differences having mean zero: the paired permutation test.

    Under the hypothesis that both of a pair come from one distribution each difference could as well have
    the other sign; this holds at any sample size and for any noise (Fisher, "The Design of Experiments",
    1935, section 21).

    Returns:
        1.0 for fewer than two differences.
    """
    if len(differences) < 2:
        return 1.0
    from scipy.stats import permutation_test

    result = permutation_test(
        (differences,),
        lambda values, axis: values.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=SIGN_FLIPS,
        rng=0,
    )
    return float(result.pvalue)
