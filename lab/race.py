"""The Race: which candidate plays which of the search's seeds next, and who is dropped.

Every candidate plays the same seeds in the same order, in rungs of 1, 2, 4, ... episodes. It owns these
decisions and the returns they rest on; it plays nothing itself, and neither clock nor endpoint reach here.
"""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from lab.candidate import Candidate, Setting
from lab.moderated import Floats, Spread, common_spread, p_above_zero
from lab.objective import Objective
from lab.sampling import at_random
from lab.space import Space
from lab.surrogate import Played, Surrogate, features

FRESH = 64
"""New candidates that are drawn for each decision, for the best of them to be compared with the known."""

LEAST_PLAYED = 8
"""Candidates that must have played before the surrogate is asked; until then the choice is random."""


class State(Enum):
    """Where an entrant stands: it may still win, was shown to be worse, or cannot be played."""

    ALIVE = "alive"
    DROPPED = "dropped"
    FAILED = "failed"


@dataclass
class Entrant:
    """A candidate in the race.

    Attributes:
        index: its place among the entrants.
        params: the same as the space's parameters; None where it lies outside.
        owed: episodes that it is playing, or has been told to.
        played: episodes of the rungs that it has finished.
    """

    index: int
    candidate: Candidate
    params: dict[str, Setting] | None
    owed: int = 0
    played: int = 0
    state: State = State.ALIVE


@dataclass(frozen=True)
class Heat:
    """What is to be played next: an entrant, and which of the seeds, by their places in the order."""

    entrant: Entrant
    places: range


class Race:
    """One race over a space.

    Args:
        most: episodes that a candidate plays at most.
        error_rate: the chance, at most, that the truly best of all entrants is dropped; see `drops`.
    """

    def __init__(
        self, space: Space, objective: Objective, most: int, error_rate: float, rng: np.random.Generator
    ) -> None:
        self.entrants: list[Entrant] = []
        self._space, self._objective, self._rng = space, objective, rng
        self._rungs = _rungs(most)
        self._error_rate = error_rate
        self._returns, self._costs = _Rows(most), _Rows(most)
        self._features = _Rows(features(space, []).shape[1])
        self._known: set[Candidate] = set()
        self._forced: list[Heat] = []

    def enter(self, candidate: Candidate, episodes: int = 1) -> Entrant | None:
        """Add a candidate that plays `episodes` before anything else is chosen; None if it is known."""
        if candidate in self._known:
            return None
        entrant = self._add(candidate)
        self._forced.append(Heat(entrant, range(min(episodes, self._rungs[-1]))))
        return entrant

    def widen(self, space: Space) -> None:
        """Go on in another space, with more choices; what was played counts there too."""
        self._space = space
        self._features = _Rows(features(space, []).shape[1])
        for entrant in self.entrants:
            entrant.params = space.params(entrant.candidate)
            self._features.append(self._row(entrant))

    def next(self) -> Heat | None:
        """The next heat, or None while all that could be played is being played."""
        heat = self._forced.pop(0) if self._forced else self._chosen()
        if heat is not None:
            heat.entrant.owed += len(heat.places)
        return heat

    def record(self, entrant: Entrant, place: int, episode_return: float, cost: float = 0.0) -> None:
        """An episode has ended. Where it ends a rung, the entrant may be dropped."""
        self._returns.values[entrant.index, place] = episode_return
        self._costs.values[entrant.index, place] = cost
        entrant.owed -= 1
        if entrant.owed == 0:
            entrant.played = int(np.isfinite(self._returns.values[entrant.index]).sum())
            if entrant.state is State.ALIVE and self.drops(entrant):
                entrant.state = State.DROPPED

    def cut(self, entrant: Entrant, place: int, bound: float, cost: float = 0.0) -> None:
        """An episode was ended in the middle, because `drops` said so of the most that it could return."""
        if entrant.state is State.ALIVE:
            entrant.state = State.DROPPED
        self.record(entrant, place, bound, cost)

    def fail(self, entrant: Entrant) -> None:
        """An episode could not be played: a candidate that can break its own calls is no candidate."""
        entrant.owed -= 1
        entrant.state = State.FAILED

    def drops(self, entrant: Entrant, bound: tuple[int, float] | None = None) -> bool:
        """Whether the entrant is shown to be worse than the best of those that have played as much.

        A one-sided, paired, moderated t test over the seeds that both have played. The true best is tested
        once an episode at most, and wrongly dropped only if one of the others seems better than it: at
        `error_rate / (episodes * others)` a test, the union bound keeps the whole below `error_rate`.

        Args:
            bound: (place, return) of an episode that is still played, with the most that it can return.
                Its true return is no higher: who is dropped with it would be dropped at the episode's end.
        """
        own = self._returns.values[entrant.index]
        played = np.flatnonzero(np.isfinite(own))
        rival = self._rival(entrant, len(played) + (bound is not None))
        if rival is None:
            return False
        best = self._objective.floor(self._returns.values[rival.index])
        gaps = best[played] - own[played]
        if bound is not None:
            gaps = np.append(gaps, best[bound[0]] - bound[1])
        if not len(gaps) or not np.isfinite(gaps).all():
            return False
        variances, df = _variances(best - self._returns.rows(len(self.entrants)))
        spread = Spread(float(variances[entrant.index]), float(df[entrant.index]))
        others = (df > 0) & (np.arange(len(df)) != rival.index)
        p = p_above_zero(float(gaps.mean()), len(gaps), spread, common_spread(variances[others], df[others]))
        return p < self._error_rate / (self._rungs[-1] * (len(self.entrants) - 1))

    def best(self, count: int, *, but: Candidate | None = None) -> list[Entrant]:
        """The `count` entrants that would be frozen if it were over now, best first."""
        able = [e for e in self.entrants if e.played and e.state is not State.FAILED and e.candidate != but]
        if not able:
            return []
        places = np.array([entrant.index for entrant in able])
        order = self._objective.order(
            self._expected(self._returns)[places], self._expected(self._costs)[places]
        )
        return [able[place] for place in order[:count]]

    def _chosen(self) -> Heat | None:
        """Draw what every candidate's mean may be, and take the best one that can play now."""
        idle = [e for e in self.entrants if self._may_go_on(e)]
        fresh = at_random(self._space, FRESH, self._rng)
        returns = self._draw(self._returns, idle, fresh)
        costs = returns if self._objective.cost is None else self._draw(self._costs, idle, fresh)
        for place in self._objective.order(returns, costs):
            if place < len(idle):
                return self._next_rung(idle[place])
            candidate = self._space.candidate(fresh[place - len(idle)])
            if candidate not in self._known:
                return Heat(self._add(candidate), range(self._rungs[0]))
        return None

    def _draw(self, rows: "_Rows", idle: list[Entrant], fresh: list[dict[str, Setting]]) -> Floats:
        played, surrogate = self._surrogate(rows)
        if surrogate is None:
            return self._rng.standard_normal(len(idle) + len(fresh))
        known, new = surrogate.draw(features(self._space, fresh), self._rng)
        drawn = np.full(len(self.entrants), -np.inf)
        drawn[played] = known
        return np.concatenate([drawn[[entrant.index for entrant in idle]], new])

    def _expected(self, rows: "_Rows") -> Floats:
        """Each entrant's expected mean: the surrogate's, or its own where it lies outside the space."""
        played, surrogate = self._surrogate(rows)
        values = rows.rows(len(self.entrants))
        counts = np.isfinite(values).sum(axis=1)
        means: Floats = np.nansum(values, axis=1) / np.maximum(counts, 1)
        if surrogate is not None:
            means[played] = surrogate.expected()
        return means

    def _surrogate(self, rows: "_Rows") -> tuple[NDArray[np.intp], Surrogate | None]:
        values = rows.rows(len(self.entrants))
        counts = np.isfinite(values).sum(axis=1).astype(float)
        inside = np.array([entrant.params is not None for entrant in self.entrants], dtype=bool)
        played = np.flatnonzero((counts > 0) & inside)
        if len(played) < LEAST_PLAYED:
            return played, None
        values, counts = values[played], counts[played]
        means = np.nansum(values, axis=1) / counts
        squares = np.nansum((values - means[:, None]) ** 2, axis=1)
        return played, Surrogate(Played(self._features.values[played], counts, means, squares))

    def _rival(self, entrant: Entrant, least: int) -> Entrant | None:
        """The best mean among the others that have played at least as many."""
        values = self._returns.rows(len(self.entrants))
        counts = np.isfinite(values).sum(axis=1)
        means = np.nansum(values, axis=1) / np.maximum(counts, 1)
        able = counts >= least
        able[entrant.index] = False
        if not able.any():
            return None
        return self.entrants[int(np.argmax(np.where(able, means, -np.inf)))]

    def _may_go_on(self, entrant: Entrant) -> bool:
        inside = entrant.params is not None
        return (
            inside and entrant.state is State.ALIVE and not entrant.owed and entrant.played < self._rungs[-1]
        )

    def _next_rung(self, entrant: Entrant) -> Heat:
        return Heat(
            entrant, range(entrant.played, next(rung for rung in self._rungs if rung > entrant.played))
        )

    def _add(self, candidate: Candidate) -> Entrant:
        entrant = Entrant(len(self.entrants), candidate, self._space.params(candidate))
        self.entrants.append(entrant)
        self._known.add(candidate)
        self._returns.append(None)
        self._costs.append(None)
        self._features.append(self._row(entrant))
        return entrant

    def _row(self, entrant: Entrant) -> Floats | None:
        return None if entrant.params is None else features(self._space, [entrant.params])[0]


class _Rows:
    """A matrix that grows by rows; NaN is where nothing is known."""

    def __init__(self, width: int) -> None:
        self.values: Floats = np.full((64, width), np.nan)
        self._count = 0

    def append(self, row: Floats | None) -> None:
        if self._count == len(self.values):
            self.values = np.vstack([self.values, np.full_like(self.values, np.nan)])
        if row is not None:
            self.values[self._count] = row
        self._count += 1

    def rows(self, count: int) -> Floats:
        return self.values[:count]


def _rungs(most: int) -> list[int]:
    """1, 2, 4, ... and `most`."""
    return [*(rung for power in range(most.bit_length()) if (rung := 2**power) < most), most]


def _variances(gaps: Floats) -> tuple[Floats, Floats]:
    """Each row's sample variance over what it holds, and its degrees of freedom."""
    counts = np.isfinite(gaps).sum(axis=1)
    df = np.maximum(counts - 1, 0)
    means = np.nansum(gaps, axis=1) / np.maximum(counts, 1)
    squares = np.nansum((gaps - means[:, None]) ** 2, axis=1)
    return squares / np.maximum(df, 1), df.astype(float)
