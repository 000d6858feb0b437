"""The moderated t test: whether a mean difference from few episodes is above zero.

A variance from two or three episodes is imprecise, so each is shrunk towards a common prior.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, polygamma, stdtr

Floats = NDArray[np.float64]

_LEAST_GROUPS = 3
_MOST_DF = 1e6


@dataclass(frozen=True)
class Spread:
    """A variance and its degrees of freedom."""

    variance: float
    df: float


NOTHING_KNOWN = Spread(0.0, 0.0)


def common_spread(variances: Floats, df: Floats) -> Spread:
    """The common prior of many sample variances, fitted by the moments of their logarithms.

    Smyth, "Linear models and empirical Bayes methods for assessing differential expression in microarray
    experiments", Statistical Applications in Genetics and Molecular Biology 3 (2004), section 6.2. If the
    variances differ more than by chance, as with heavy tails, the prior has fewer degrees of freedom.

    Args:
        variances: One per group; groups without one are left out.
        df: Degrees of freedom of each variance, at least 1.

    Returns:
        The prior; `NOTHING_KNOWN` for fewer than 3 groups.
    """
    usable = variances > 0
    if usable.sum() < _LEAST_GROUPS:
        return NOTHING_KNOWN
    variances, df = variances[usable], df[usable]
    logs = np.log(variances) - digamma(df / 2) + np.log(df / 2)
    centre = float(logs.mean())
    excess = float(logs.var(ddof=1) - polygamma(1, df / 2).mean())
    # The prior cannot be more precise than all the variances together that it is fitted to.
    most = float(df.sum())
    if excess <= 0:
        return Spread(float(np.exp(centre)), most)
    half = _trigamma_inverse(excess)
    return Spread(float(np.exp(centre + digamma(half) - np.log(half))), min(2 * half, most))


def p_above_zero(mean: float, n: int, own: Spread, prior: Spread) -> float:
    """The one-sided p-value of a mean of `n` differences being above zero by chance.

    Args:
        own: Sample variance of the differences, with 0 degrees of freedom for a single one.

    Returns:
        The p-value; 1.0 if the variance is unknown.

    """
    df = own.df + prior.df
    if df <= 0 or mean <= 0:
        return 1.0
    variance = (own.df * own.variance + prior.df * prior.variance) / df
    if variance <= 0:
        return 1.0
    return float(stdtr(min(df, _MOST_DF), -mean / np.sqrt(variance / n)))


def _trigamma_inverse(value: float) -> float:
    """The x with trigamma(x) = `value`, by Newton's method (Smyth 2004, appendix)."""
    if value < 1e-6:
        return 1.0 / value
    x = 0.5 + 1.0 / value
    for _ in range(20):
        trigamma = float(polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, x))
        x += step
        if -step / x < 1e-8:
            break
    return x
