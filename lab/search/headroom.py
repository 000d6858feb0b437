"""The headroom test: whether candidates differ by more than chance, before the budget is spent on the search.

It owns which entrants are compared, and when; it costs the episodes of those that nobody would play again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from statistics import fmean

import numpy as np
from scipy.special import stdtr, stdtrit

from lab.agent.task import Measure
from lab.search.race import Entrant, Race, State
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
    """Asks the race for what the test needs, and tells its outcome once.

    Who is in which group is settled by other episodes than those that are compared, so that equal candidates
    are found to differ in no more than LEVEL of the studies, however the race chose.

    Args:
        opening: the entrants that opened the race; they lie far apart.
    """

    def __init__(self, race: Race, opening: Sequence[Entrant]) -> None:
        self._race, self._opening = race, opening
        self._last: list[Entrant] = []
        self._asked: list[Entrant] = []
        self._told = False

    def look(self) -> Headroom | None:
        """To be called when an episode has ended: the outcome once, as soon as it is known; else None."""
        if self._told:
            return None
        if not self._last:
            self._form_groups()
        asked = [entrant for entrant in self._asked if entrant.state is not State.FAILED]
        if not asked or not all(isfinite(self._second(entrant)) for entrant in asked):
            return None
        self._told = True
        last = [self._second(one) for one in self._last if one in asked]
        return headroom(self._contenders(self._last), last, self._race.measure)

    def _form_groups(self) -> None:
        """Once as many as came out last have earned a second episode, or none are waited for any longer."""
        able = [entrant for entrant in self._opening if entrant.state is not State.FAILED]
        if not all(entrant.played for entrant in able):
            return
        ranked = sorted(able, key=lambda entrant: self._race.values(entrant)[0])
        last = ranked[: min(GROUP, len(able) // 2)]
        earned = len(self._contenders(last)) >= len(last)
        if earned or len(self._race.entrants) >= LATE * len(self._opening):
            self._last = last
            self._asked = last if earned else [*last, *ranked[len(ranked) - len(last) :]]
            for entrant in self._asked:
                self._race.again(entrant)

    def _contenders(self, last: list[Entrant]) -> list[float]:
        """The second values of all others that have one."""
        values = [self._second(entrant) for entrant in self._race.entrants if entrant not in last]
        return [one for one in values if isfinite(one)]

    def _second(self, entrant: Entrant) -> float:
        values = self._race.values(entrant)
        return float(values[1]) if len(values) > 1 else float("nan")


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
