"""The warm-up test (headroom): whether the initial candidates differ by more than chance.

It owns which candidates are compared, and when; it costs second episodes of the lowest-ranked ones.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean

import numpy as np
from scipy.special import stdtr, stdtrit

from lab.agent.task import Measure
from lab.search.points import Floats
from lab.stats.format import count, estimate_text, p_text
from lab.stats.intervals import Estimate

LEVEL = 0.05
"""Significance level of the test."""

GROUP = 4
"""Minimum size of each of the two groups; smaller if the study has fewer initial candidates."""

LATE = 3
"""Number of candidates, as a multiple of the initial ones, after which the test stops waiting for the race's
own second episodes: while every new candidate looks better than the played ones, the race plays none."""

NOT_MADE = (
    "The warm-up test could not be made: too few of the initial candidates played a second episode. It is"
    " unknown whether candidates differ at all."
)
"""What a search says that ends without the test."""


@dataclass(frozen=True)
class Headroom:
    """How far the leading candidates are ahead of the lowest-ranked initial ones.

    Attributes:
        contenders, last: Sizes of the two groups that played a second episode, all on the same seed.
        ahead: Difference of their mean values in it, with the 95 % interval.
        p_value: One-sided p-value of no difference.
        measure: The number that was compared.
    """

    contenders: int
    last: int
    ahead: Estimate
    p_value: float
    measure: Measure = "return"

    @property
    def found(self) -> bool:
        """Whether the candidates differ by more than chance."""
        return self.p_value < LEVEL

    def __str__(self) -> str:
        figures = (
            f"mean {self.measure} in a second episode, {count(self.contenders, 'leader')} minus the"
            f" {self.last} lowest-ranked: {estimate_text(self.ahead, sign=True)}; {p_text(self.p_value)}"
        )
        if self.found:
            return f"Warm-up test: candidates differ, so there is something to gain ({figures})."
        return (
            "Warm-up test: no difference found so far; early leaders did not repeat their results"
            f" ({figures}). Widen the space, or let each candidate play more episodes."
        )


class HeadroomTest:
    """Requests the episodes that the test needs, and gives its result once.

    The groups are formed by other episodes than those compared, so that equal candidates are found to differ
    in at most a share LEVEL of the studies, however the search chose.

    Args:
        opening: Numbers of the initial trials, which are spread over the space.
    """

    def __init__(self, opening: Sequence[int], measure: Measure) -> None:
        self._opening, self._measure = opening, measure
        self._last: list[int] = []
        self.asked: list[int] = []

    def look(self, values: Floats, failed: Collection[int]) -> Headroom | None:
        """Return the result as soon as it is known.

        Args:
            values: Reported value by trial number and step; NaN if none.
            failed: Numbers of trials that cannot be played.
        """
        if not self._last:
            self._form_groups(values, failed)
        asked = [one for one in self.asked if one not in failed]
        if not asked or not np.isfinite(_second(values)[asked]).all():
            return None
        last = [float(_second(values)[one]) for one in self._last if one in asked]
        return headroom(self._contenders(values), last, self._measure)

    def _form_groups(self, values: Floats, failed: Collection[int]) -> None:
        """Form the groups once enough leaders have a second episode, or the test waits no longer."""
        able = [one for one in self._opening if one not in failed]
        if len(able) < 2 or max(able) >= len(values) or not np.isfinite(values[able, 0]).all():
            return
        order = sorted(able, key=lambda one: float(values[one, 0]))
        self._last = order[: min(GROUP, len(able) // 2)]
        earned = len(self._contenders(values)) >= len(self._last)
        if earned or len(values) >= LATE * len(self._opening):
            best = order[len(order) - len(self._last) :]
            self.asked = self._last if earned else [*self._last, *best]
        else:
            self._last = []

    def _contenders(self, values: Floats) -> list[float]:
        """Second values of the trials that are not among the lowest-ranked."""
        second = _second(values)
        return [
            float(second[one])
            for one in range(len(values))
            if one not in self._last and np.isfinite(second[one])
        ]


def _second(values: Floats) -> Floats:
    second: Floats = values[:, 1] if values.shape[1] > 1 else np.full(len(values), np.nan)
    return second


def headroom(
    contenders: Sequence[float], last: Sequence[float], measure: Measure = "return"
) -> Headroom | None:
    """Student's t test for two groups, one-sided, with a pooled variance (Biometrika 6, 1908).

    Args:
        contenders, last: Values by `measure` on one seed, by which the groups were not formed.

    Returns:
        None if a group is empty or both have a single value: the test is undefined.
    """
    counts, df = (len(contenders), len(last)), len(contenders) + len(last) - 2
    if not all(counts) or df < 1:
        return None
    mean = fmean(contenders) - fmean(last)
    rounding = 1e-9 * max(map(abs, (*contenders, *last)))
    squares = sum(float(np.var(group)) * len(group) for group in (contenders, last))
    error = sqrt(squares / df * (1 / counts[0] + 1 / counts[1]))
    if error <= rounding:  # without noise any difference counts
        p_value = 0.0 if mean > rounding else 1.0
        return Headroom(*counts, Estimate(mean, mean, mean, sum(counts)), p_value, measure)
    half = error * float(stdtrit(df, 0.975))
    p_value = float(stdtr(df, -mean / error))
    return Headroom(*counts, Estimate(mean, mean - half, mean + half, sum(counts)), p_value, measure)
