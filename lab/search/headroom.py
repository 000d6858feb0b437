"""The headroom test: whether candidates differ by more than chance, before the budget is spent on the search.

It owns which entrants are compared, and when; it costs the episodes of those that nobody would play again.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean

import numpy as np
from scipy.special import stdtr, stdtrit

from lab.agent.task import Measure
from lab.search.points import Floats
from lab.stats.format import estimate_text, p_text
from lab.stats.intervals import Estimate

LEVEL = 0.05
"""Of the test."""

GROUP = 4
"""Entrants in each of the two groups, at least; fewer where fewer opened the race."""

LATE = 3
"""Candidates, times those that opened the race, after which the race's own second episodes are waited for no
longer: while everything new looks better than all that has played, it would play none."""


@dataclass(frozen=True)
class Headroom:
    """How far those that the race went on with are ahead of those that came out last.

    Attributes:
        contenders, last: how many of each played their second episode, all on the same seed.
        ahead: difference of their mean values in it, with the 95 % interval.
        p_value: one-sided, that there is no difference.
        measure: the number that was compared.
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
        unit = " in score" if self.measure == "score" else ""
        figures = (
            f"in a second episode {self.contenders} contenders are ahead of the first's last {self.last} by"
            f" {estimate_text(self.ahead)}{unit}; {p_text(self.p_value)}"
        )
        if self.found:
            return f"Headroom: there is something to find ({figures})."
        return (
            f"Headroom: NONE SEEN. Who did well at first did not do so again ({figures}). A gain may not be"
            " there to be found: widen the space, or let each candidate play more episodes."
        )


class HeadroomTest:
    """Asks for the episodes that the test needs, and gives its outcome once.

    Who is in which group is settled by other episodes than those that are compared, so that equal candidates
    are found to differ in no more than LEVEL of the studies, however the search chose.

    Args:
        opening: numbers of the trials that opened the search; they lie far apart.
    """

    def __init__(self, opening: Sequence[int], measure: Measure) -> None:
        self._opening, self._measure = opening, measure
        self._last: list[int] = []
        self.asked: list[int] = []

    def look(self, values: Floats, failed: Collection[int]) -> Headroom | None:
        """Return the outcome as soon as it is known.

        Args:
            values: what each trial reported, by number and step; NaN where nothing was.
            failed: trials that cannot be played.
        """
        if not self._last:
            self._form_groups(values, failed)
        asked = [one for one in self.asked if one not in failed]
        if not asked or not np.isfinite(_second(values)[asked]).all():
            return None
        last = [float(_second(values)[one]) for one in self._last if one in asked]
        return headroom(self._contenders(values), last, self._measure)

    def _form_groups(self, values: Floats, failed: Collection[int]) -> None:
        """Once as many as came out last have earned a second episode, or none are waited for any longer."""
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
        """The second values of all others that have one."""
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
        contenders, last: values by `measure` on one seed; the groups were made without looking at them.

    Returns:
        None where a group is empty or both have a single value: nothing can be told.
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
