"""The warm-up test (headroom): whether candidates differ by more than an episode's noise explains.

It owns the test, when it is made, and whose second episodes it asks for. It may be made again and again: a
sequential test, whose false alarms over the whole study are limited.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from lab.agent.task import Measure
from lab.search.effects import Effects
from lab.search.kernel import Kernel, encoded
from lab.search.points import Distributions, Floats, has_point, row_of
from lab.search.returns import BLAS, reports
from lab.search.trials import number_of
from lab.stats.format import count, estimate_text, number, p_text
from lab.stats.intervals import Estimate

LEVEL = 0.05
"""Significance level of the test over a whole study, and of the statement that no difference was seen."""

TRIED, GROUP = 2, 6
"""Once this many times the initial candidates have played, the test asks for a second episode of the `GROUP`
lowest- and as many highest-ranked ones, until it has seen a difference: the race itself may replay few."""

ROWS = 64
"""Number of candidates, the first ones, of which the test is made: so it takes 1 ms in any study."""

RATIOS = np.array([0.5, 2.0, 8.0])
"""Variances of the candidates' means that the test looks for, in units of an episode's."""

_GRID = np.append(0.0, 2.0 ** np.arange(-8, 20.5, 0.5))
"""Ratios among which the spread is estimated; the highest are those of an environment without noise."""

_INSIDE = 1.92
"""Half the 95 % quantile of chi-squared with one degree of freedom, for the interval by likelihood."""

NOT_MADE = (
    "The warm-up test could not be made: too few candidates have played. It is unknown whether candidates"
    " differ at all."
)
"""What a search says that ends without the test."""


@dataclass(frozen=True)
class Headroom:
    """How much the candidates differ.

    Attributes:
        candidates: Number of candidates that the test compared.
        spread: Standard deviation of their means in units of the noise, with its 95 % interval and the number
            of episodes.
        noise: Standard deviation of an episode of one candidate on a seed.
        p_value: p-value of no difference; at any time, it is below 0.05 in at most 5 % of studies without.
        p_large: The same for a spread as large as the noise.
        measure: The number that was compared.
    """

    candidates: int
    spread: Estimate
    noise: float
    p_value: float
    p_large: float
    measure: Measure = "return"

    @property
    def found(self) -> bool:
        """Whether the candidates differ by more than chance."""
        return self.p_value < LEVEL

    @property
    def result(self) -> str:
        """The result in words; without a difference, whether the test had the power to see one."""
        if self.found:
            return "found"
        return "none seen" if self.p_large < LEVEL else "not yet known"

    def __str__(self) -> str:
        means, spread = f"mean {self.measure}s", self.spread
        if spread.low == 0 and spread.high >= math.sqrt(_GRID[-1]):
            differ = f"too few to say how much {means} differ"
        else:
            noise = f"times an episode's noise of {number(self.noise)}"
            differ = f"the {means} differ by {estimate_text(spread)} {noise}"
        played = f"{count(self.candidates, 'candidate')} in {count(spread.n, 'episode')}"
        figures = f"{played}: {differ}; {p_text(self.p_value)}"
        said, advice = _WORDS[self.result]
        return f"Warm-up test: {said} ({figures}).{advice}"


_WORDS = {
    "found": ("candidates differ, so there is something to gain", ""),
    "none seen": (
        "no difference found, and one as large as an episode's noise would have been seen",
        " Widen the space, or let each candidate play more episodes.",
    ),
    "not yet known": (
        "it is not yet known whether candidates differ",
        " More candidates, or more episodes of each, would show it.",
    ),
}
"""What a result says, before and after its figures."""


def as_headroom(fact: Mapping[str, Any] | None) -> Headroom | None:
    """Return the result from a study's fact; None without one in today's form."""
    if not isinstance(fact, Mapping) or "spread" not in fact:
        return None
    return Headroom(**{**fact, "spread": Estimate(**fact["spread"])})


class HeadroomTest:
    """Tests again as the race goes on, until a difference is found.

    Args:
        space: The study's distributions.
        opening: Number of initial trials, which are spread over the space.
        before: Result of an earlier process.

    Attributes:
        asked: Numbers of the trials whose second episode would show the most, in the order of their worth.
    """

    def __init__(
        self, space: Distributions, opening: int, measure: Measure, before: Headroom | None = None
    ) -> None:
        self._space, self._opening, self._measure = space, opening, measure
        self._said, self._looked = before.result if before else "", 0
        self.asked: list[int] = []

    def look(self, trials: Sequence[FrozenTrial], *, last: bool = False) -> Headroom | None:
        """Return the result if a difference was found, or if it now has the power to say that none was seen.

        It depends on the trials alone. It is looked for at each report at first, then 16 times while the
        episodes double.

        Args:
            trials: All trials, by number.
            last: Whether to return what is known so far in any case; None if nothing can be said.
        """
        if not self.asked:
            self.asked = self._extremes(trials[: TRIED * self._opening])
        episodes = sum(len(one.intermediate_values) for one in trials[:ROWS])
        every = max((1 << episodes.bit_length()) // 32, 1)
        is_due = episodes >= self._opening and episodes % every == 0 and episodes != self._looked
        self._looked = episodes
        seen = self._seen(trials[:ROWS]) if is_due or last else None
        if seen is None or not (last or seen.result not in ("not yet known", self._said)):
            return None
        self._said = seen.result
        return seen

    def _seen(self, trials: Sequence[FrozenTrial]) -> Headroom | None:
        rows = [one for one in trials if self._is_able(one) and _values_of(one)]
        if len(rows) < 2:
            return None
        points = encoded(self._space, np.array([row_of(self._space, one.params) for one in rows]))
        alike = Kernel.of(self._space)(points, points)
        return headroom(_table([_values_of(one) for one in rows]), alike, self._measure)

    def _extremes(self, first: Sequence[FrozenTrial]) -> list[int]:
        """The lowest and the highest in their first episode, once all of these have played it."""
        waiting = [one for one in first if not one.state.is_finished() and not _values_of(one)]
        if waiting or len(first) < TRIED * self._opening:
            return []
        able = [one for one in first if self._is_able(one) and 0 in _values_of(one)]
        order = [number_of(one) for one in sorted(able, key=lambda one: _values_of(one)[0])]
        group = min(GROUP, len(order) // 2)
        return [one for pair in zip(order[:group], order[::-1][:group], strict=True) for one in pair]

    def _is_able(self, trial: FrozenTrial) -> bool:
        """Whether a trial can be played, and lies in the space."""
        return has_point(self._space, trial.params) and trial.state is not TrialState.FAIL


def _values_of(trial: FrozenTrial) -> dict[int, float]:
    """The value of each step; the bound of one that was cut."""
    return dict([trial.user_attrs["cut"]] if "cut" in trial.user_attrs else []) | dict(reports(trial))


def _table(rows: Sequence[Mapping[int, float]]) -> Floats:
    values = np.full((len(rows), max(max(row) for row in rows) + 1), np.nan)
    for place, row in enumerate(rows):
        values[place, list(row)] = list(row.values())
    return values


def headroom(values: Floats, alike: Floats, measure: Measure = "return") -> Headroom | None:
    """Test whether candidates differ: a Bayes factor of a spread of their means against none.

    `value = seed + mean + noise`, all normal, with means that are independent, or correlated as `alike`. The
    seeds' effects and the scale are integrated out by their invariant priors, so that 1 / factor is a p-value
    however often one looks, and whatever the race plays (Pérez-Ortiz et al., "E-statistics, group invariance
    and anytime-valid testing", Annals of Statistics 52, 2024); the factors of all `RATIOS` are averaged.

    Args:
        values: A row a candidate, a column a seed; NaN where nothing was played.
        alike: Correlation of the candidates' means by their parameters.

    Returns:
        None if no seed was played by two candidates.
    """
    none_alike = np.eye(len(values))
    with BLAS.limit(limits=1):
        root: Floats = np.asarray(np.linalg.cholesky(alike + 1e-6 * none_alike), dtype=np.float64)
        independent, correlated = Effects.of(values, none_alike), Effects.of(values, root)
    if independent.df < 1:
        return None
    factors = np.concatenate([one.log_factors(RATIOS) for one in (independent, correlated)])
    against = np.log(len(factors)) - np.logaddexp.reduce(factors)
    large = float(independent.log_factors(np.ones(1))[0])
    scores, episodes = independent.log_factors(_GRID), int(np.isfinite(values).sum())
    best = int(np.argmax(scores))
    near = _GRID[scores >= scores[best] - _INSIDE]
    mean, low, high = (math.sqrt(one) for one in (_GRID[best], near[0], near[-1]))
    spread = Estimate(mean, low, high, episodes)
    p_value, p_large = (float(np.exp(min(one, 0.0))) for one in (against, large))
    return Headroom(len(values), spread, independent.noise(_GRID[best]), p_value, p_large, measure)
