"""The Race: which candidate plays which of the search's seeds next, and who is dropped.

Every candidate plays the same seeds in the same order, in rungs of 1, 2, 4, ... episodes. It owns these
decisions; it plays nothing itself, and neither clock nor endpoint reach here.
"""

from collections import deque
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from lab.agent.candidate import Candidate
from lab.agent.task import Measure
from lab.experiment.objective import Objective
from lab.experiment.space import Space
from lab.search.points import Params, at_random
from lab.search.returns import Scores
from lab.search.surrogate import Draw, crossed, features
from lab.stats.moderated_t import Floats

FRESH = 64
"""New candidates that are drawn for each choice; the best of them, and the best that can be made of their
settings, are compared with the known."""


class State(Enum):
    """Where an entrant stands: it may still win, was shown to be worse, or cannot be played."""

    ALIVE = "alive"
    DROPPED = "dropped"
    FAILED = "failed"


@dataclass
class Entrant:
    """A candidate in the race.

    Attributes:
        index: its place in the order of entering.
        params: the same as the space's parameters; None where it lies outside.
        owed: episodes that it is playing, or has been told to.
        played: episodes of the rungs that it has finished.
    """

    index: int
    candidate: Candidate
    params: Params | None
    owed: int = 0
    played: int = 0
    state: State = State.ALIVE


@dataclass(frozen=True)
class Heat:
    """What is to be played next: a candidate, and which of the seeds, by their places in the order."""

    candidate: Candidate
    places: range


class Race:
    """One race over a space.

    Args:
        most: episodes that a candidate plays at most.
        error_rate: the chance, at most, that the truly best of all entrants is dropped; see `drops`.
        seed: of the draws. A choice follows from it, what was begun and what was played, and nothing else.
        tasks: that the seeds play by turns.
    """

    def __init__(
        self,
        space: Space,
        objective: Objective,
        most: int,
        error_rate: float,
        seed: int,
        tasks: int = 1,
    ) -> None:
        self.entrants: list[Entrant] = []
        self._space, self._objective, self._seed = space, objective, seed
        self._most, self._error_rate = most, error_rate
        self._begun = 0
        self._values, self._costs = Scores(most, tasks), Scores(most, tasks)
        self._features: list[Floats] = []
        self._known: dict[Candidate, Entrant] = {}
        self._forced: deque[Heat] = deque()

    def enter(self, candidate: Candidate) -> Entrant | None:
        """Add a candidate that plays before anything else is chosen; None if it is known."""
        if candidate in self._known:
            return None
        entrant = self._add(candidate)
        self._forced.append(Heat(candidate, range(1)))
        return entrant

    def again(self, entrant: Entrant) -> None:
        """Let an entrant that has played once play its second episode before anything else is chosen."""
        if entrant.played == 1 and not entrant.owed and self._most > 1:
            self._forced.append(Heat(entrant.candidate, range(1, 2)))

    @property
    def measure(self) -> Measure:
        """The number that the values are of."""
        return self._objective.maximise

    def values(self, entrant: Entrant) -> Floats:
        """Its episodes' values, a place for each of the seeds; NaN where it has not played."""
        values: Floats = self._values.values[entrant.index]
        return values

    def widen(self, space: Space) -> None:
        """Go on in another space, with more choices; what was played counts there too."""
        self._space = space
        for entrant in self.entrants:
            entrant.params = space.params(entrant.candidate)
        self._features = [self._row(entrant.params) for entrant in self.entrants]

    def next(self) -> Heat | None:
        """What should be begun next, or None while all that could be played is being played."""
        return self._forced[0] if self._forced else self._chosen()

    def begin(self, heat: Heat) -> Entrant:
        """A heat is being played from now on, whether `next` said so or a record does."""
        if heat in self._forced:
            self._forced.remove(heat)
        entrant = self._known.get(heat.candidate) or self._add(heat.candidate)
        entrant.owed += len(heat.places)
        self._begun += 1
        return entrant

    def record(self, entrant: Entrant, place: int, value: float, cost: float = 0.0) -> None:
        """An episode has ended. Where it ends a rung, the entrant may be dropped.

        Args:
            value: of the episode, by the number that the objective maximises.
        """
        self._values.values[entrant.index, place] = value
        self._costs.values[entrant.index, place] = cost
        entrant.owed -= 1
        if entrant.owed == 0:
            entrant.played = int(np.isfinite(self._values.values[entrant.index]).sum())
            if entrant.state is State.ALIVE and self.drops(entrant):
                entrant.state = State.DROPPED

    def cut(self, entrant: Entrant, place: int, bound: float) -> None:
        """An episode was ended in the middle, because `drops` said so of the highest value in its reach."""
        if entrant.state is State.ALIVE:
            entrant.state = State.DROPPED
        self.record(entrant, place, bound, np.nan)

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
            bound: (place, value) of an episode that is still played, with the highest value in its reach.
                Its true value is no higher: who is dropped with it would be dropped at the episode's end.
        """
        counted = int(np.isfinite(self._values.values[entrant.index]).sum()) + (bound is not None)
        rival = self._values.rival(entrant.index, counted)
        if rival is None:
            return False
        floor = self._objective.floor(self._values.values[rival])
        p_value = self._values.p_behind(entrant.index, floor, bound)
        return p_value < self._error_rate / (self._most * (len(self.entrants) - 1))

    def best(self, count: int) -> list[Entrant]:
        """The `count` entrants that would be frozen if it were over now, best first, the dropped last."""
        able = [entrant for entrant in self.entrants if entrant.played and entrant.state is not State.FAILED]
        places = np.array([entrant.index for entrant in able], dtype=int)
        order = self._objective.order(
            self._expected(self._values)[places], self._expected(self._costs)[places]
        )
        ranked = sorted((able[place] for place in order), key=lambda entrant: entrant.state is State.DROPPED)
        return ranked[:count]

    def _chosen(self) -> Heat | None:
        """Draw what every candidate's mean may be, and take the best one that can play now."""
        rng = np.random.default_rng([self._seed, self._begun])
        idle = [entrant for entrant in self.entrants if self._may_go_on(entrant)]
        fresh = at_random(self._space, FRESH, rng)
        draw = self._draw(self._values, rng)
        if draw is not None:
            fresh.append(crossed(self._space, fresh, draw.weights))
        new = features(self._space, fresh)
        values = costs = _values(draw, idle, new, rng)
        if self._objective.cost is not None:
            costs = _values(self._draw(self._costs, rng), idle, new, rng)
        for place in self._objective.order(values, costs):
            if place < len(idle):
                played = idle[place].played
                return Heat(idle[place].candidate, range(played, self._next_rung(played)))
            candidate = self._space.candidate(fresh[place - len(idle)])
            if candidate not in self._known:
                return Heat(candidate, range(1))
        return None

    def _draw(self, scores: Scores, rng: np.random.Generator) -> Draw | None:
        """What the means may be, with a place for every entrant; None before there is a surrogate."""
        fitted = scores.surrogate(*self._columns())
        if fitted is None:
            return None
        places, surrogate = fitted
        draw = surrogate.draw(rng)
        played = np.full(len(self.entrants), -np.inf)
        played[places] = draw.played
        return replace(draw, played=played)

    def _expected(self, scores: Scores) -> Floats:
        """Each entrant's expected mean: the surrogate's, or its own where it lies outside the space."""
        means, fitted = scores.means, scores.surrogate(*self._columns())
        if fitted is not None:
            means[fitted[0]] = fitted[1].expected()
        return means

    def _columns(self) -> tuple[Floats, NDArray[np.bool_]]:
        inside = np.array([entrant.params is not None for entrant in self.entrants], dtype=bool)
        return np.array(self._features).reshape(len(self.entrants), self._width), inside

    def _may_go_on(self, entrant: Entrant) -> bool:
        resting = entrant.state is State.ALIVE and not entrant.owed and entrant.params is not None
        return resting and 0 < entrant.played < self._most

    def _next_rung(self, played: int) -> int:
        return min(1 << played.bit_length(), self._most)

    def _add(self, candidate: Candidate) -> Entrant:
        entrant = Entrant(len(self.entrants), candidate, self._space.params(candidate))
        self.entrants.append(entrant)
        self._known[candidate] = entrant
        self._features.append(self._row(entrant.params))
        self._values.add_row()
        self._costs.add_row()
        return entrant

    def _row(self, params: Params | None) -> Floats:
        return np.zeros(self._width) if params is None else features(self._space, [params])[0]

    @property
    def _width(self) -> int:
        return int(features(self._space, []).shape[1])


def _values(draw: Draw | None, idle: list[Entrant], new: Floats, rng: np.random.Generator) -> Floats:
    """A value for each of the idle, then for each of the new; at random without a draw."""
    if draw is None:
        return rng.standard_normal(len(idle) + len(new))
    return np.concatenate([draw.played[[entrant.index for entrant in idle]], draw.of(new)])
