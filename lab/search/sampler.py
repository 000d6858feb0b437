"""RaceSampler: an Optuna sampler for objectives that are the mean over many noisy instances.

From the lab it uses only `points`, `returns` and `surrogate` of this room, and `lab.stats.moderated_t`. The
caller plays the trials; `lab.search.pruner` prunes them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from lab.search.points import Distributions, Floats, Params, at_random, contains, value_at
from lab.search.returns import Lock, Returns
from lab.search.surrogate import Draw, Surrogate, crossed, features

FRESH = 64
"""New points drawn for each choice. The best of them, and the best combination of their parameters, are
compared with the known ones."""

NEW = -1
"""The choice of a new trial."""

Order = Callable[[Floats, Floats], Sequence[int]]
"""Indices, best first, given values and costs."""

Costs = Callable[[FrozenTrial], Mapping[int, float]]
"""A trial's cost by step."""


def by_value(values: Floats, costs: Floats) -> Sequence[int]:  # noqa: ARG001  # an order that has no cost
    """Return the indices by descending value."""
    return [int(place) for place in np.argsort(-values, kind="stable")]


class RaceSampler(BaseSampler):
    """Thompson sampling over a linear model of what trials reported for each instance.

    An objective reports one value for each of a list of instances: `trial.report(value, step=index)`. A new
    trial's parameters are the best of many points, by one draw from the posterior of their means (Russo et
    al., "A Tutorial on Thompson Sampling", 2018). `choose` compares them with trials that could report more.

    Args:
        space: The search space; None for the intersection of all trials so far.
        drawn: The part of it from which new points are drawn; None for all of it.
        seed: Seed of the draws. A choice depends only on it and on the study's trials.
        tasks: Number of kinds of instances, which the steps play round-robin.
        order: Sorts means with their costs, best first; by default the highest mean.
        costs: Reads a trial's cost by step; None if `order` needs none.
    """

    def __init__(
        self,
        *,
        space: Distributions | None = None,
        drawn: Distributions | None = None,
        seed: int | None = None,
        tasks: int = 1,
        order: Order = by_value,
        costs: Costs | None = None,
    ) -> None:
        self.space, self.drawn = space, drawn
        self._tasks, self._order, self._costs = tasks, order, costs
        self._inferred = IntersectionSearchSpace(include_pruned=True)
        self._study, self._tables = "", self._empty()
        self._lock = Lock()
        self._chosen: Params | None = None
        self._ranking: _Table | None = None
        self.reseed_rng()
        if seed is not None:
            self._seed, self._rng = seed, np.random.default_rng(seed)

    def reseed_rng(self) -> None:
        """Change the seed; Optuna calls this when it copies a sampler to other threads."""
        self._rng = np.random.default_rng()
        self._seed = int(self._rng.integers(2**31))

    def infer_relative_search_space(
        self,
        study: Study,
        trial: FrozenTrial,  # noqa: ARG002  # Optuna's
    ) -> dict[str, BaseDistribution]:
        """Return the parameters that are sampled together."""
        self._raise_error_if_multi_objective(study)
        return dict(self.space) if self.space is not None else self._inferred.calculate(study)

    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,  # noqa: ARG002  # Optuna's
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Return the parameters of a new trial: those of `choose`, if it has just chosen a new one."""
        self._raise_error_if_multi_objective(study)
        if not search_space:
            return {}
        with self._lock:
            if self._chosen is None:
                self._choose(study, search_space, [], 0)
            chosen, self._chosen = self._chosen, None
            return chosen or at_random(search_space, 1, self._rng)[0]

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,  # noqa: ARG002  # Optuna's
        param_name: str,  # noqa: ARG002
        param_distribution: BaseDistribution,
    ) -> Any:  # noqa: ANN401  # of any category
        """Return a value drawn at random."""
        self._raise_error_if_multi_objective(study)
        return value_at(param_distribution, float(self._rng.random()))

    def choose(self, study: Study, idle: Sequence[int], playing: int = 0) -> int | None:
        """Return the number of the trial that should report more, or NEW if a new trial looks better.

        The next `study.ask` samples the new trial's parameters.

        Args:
            idle: Numbers of the trials that could report more.
            playing: Number of pending reports, so that concurrent choices use different draws.

        Returns:
            None if nothing is left: no trial is idle, and all points of the space have been tried.
        """
        assert self.space is not None, "choose needs a space"
        with self._lock:
            return self._choose(study, self.space, idle, playing)

    def expected(self, trials: Sequence[FrozenTrial]) -> Floats:
        """Return each trial's expected mean by number; NaN if nothing was reported.

        Args:
            trials: Trials of a study that maximises, the same one at each call.
        """
        assert self.space is not None, "expected needs a space"
        with self._lock:
            if self._ranking is None:
                self._ranking = _Table(self.space, Returns(self._tasks))
            self._ranking.read(trials, 1.0)
            return self._ranking.expected()

    def _choose(self, study: Study, space: Distributions, idle: Sequence[int], playing: int) -> int | None:
        values_table, costs_table = self._read(study, space)
        rng = np.random.default_rng([self._seed, values_table.moves + playing])
        drawn = space if self.drawn is None else self.drawn
        fresh = at_random(drawn, FRESH, rng)
        draw = values_table.draw(rng)
        if draw is not None:
            fresh.append(crossed(space, fresh, draw.weights))
        new = features(space, fresh)
        values = costs = _means(draw, idle, new, rng)
        if self._costs is not None:
            costs = _means(costs_table.draw(rng), idle, new, rng)
        for place in self._order(values, costs):
            if place < len(idle):
                return idle[place]
            if values_table.is_new(point := fresh[place - len(idle)]):
                self._chosen = point
                return NEW
        return None

    def _read(self, study: Study, space: Distributions) -> tuple["_Table", "_Table"]:
        """All trials of the study; only new ones are read unless it is another study."""
        if (study.study_name, list(space)) != (self._study, list(self._tables[0].space)):
            self._study, self._tables = study.study_name, self._empty(space)
        sign = 1.0 if study.direction == StudyDirection.MAXIMIZE else -1.0
        trials = study.get_trials(deepcopy=False)
        self._tables[0].read(trials, sign)
        if self._costs is not None:
            self._tables[1].read(trials, 1.0)
        return self._tables

    def _empty(self, space: Distributions | None = None) -> tuple["_Table", "_Table"]:
        values, costs = Returns(self._tasks), Returns(self._tasks, self._costs)
        return _Table(space or {}, values), _Table(space or {}, costs)


class _Table:
    """A study's trials as the model sees them: a row each, with features and reported values."""

    def __init__(self, space: Distributions, returns: Returns) -> None:
        self.space, self._returns = space, returns
        self._features: Floats = np.zeros((0, features(space, []).shape[1]))
        self._inside: NDArray[np.bool_] = np.zeros(0, dtype=bool)
        self._outside = list[int]()
        self._known = set[tuple[Any, ...]]()

    @property
    def moves(self) -> int:
        """Return the number of trials and reports so far."""
        return len(self._returns.values) + int(self._returns.counts.sum())

    def read(self, trials: Sequence[FrozenTrial], sign: float) -> None:
        """Read what is new."""
        self._returns.read(trials, sign)
        more = len(trials) - len(self._inside)
        self._features = np.pad(self._features, [(0, more), (0, 0)])
        self._outside += range(len(self._inside), len(trials))
        self._inside = np.pad(self._inside, (0, more))
        outside, self._outside = self._outside, []
        for row in outside:
            params = trials[row].params
            if all(name in params and contains(one, params[name]) for name, one in self.space.items()):
                self._inside[row] = True
                self._features[row] = features(self.space, [params])[0]
                self._known.add(tuple(params[name] for name in self.space))
            elif not trials[row].state.is_finished():
                self._outside.append(row)  # its parameters are being sampled

    def is_new(self, params: Params) -> bool:
        """Return whether no trial has these parameters."""
        return tuple(params[name] for name in self.space) not in self._known

    def draw(self, rng: np.random.Generator) -> Draw | None:
        """Return a draw of the means of all trials; None without a model."""
        fitted = self._fitted()
        if fitted is None:
            return None
        rows, surrogate = fitted
        draw = surrogate.draw(rng)
        played = np.full(len(self._returns.values), -np.inf)
        played[rows] = draw.played
        return replace(draw, played=played)

    def expected(self) -> Floats:
        """Return each trial's expected mean: the model's, or its own if it is outside the space."""
        means, fitted = np.where(self._returns.counts > 0, self._returns.means, np.nan), self._fitted()
        if fitted is not None:
            means[fitted[0]] = fitted[1].expected()
        return means

    def _fitted(self) -> tuple[NDArray[np.intp], Surrogate] | None:
        return self._returns.surrogate(self._features, self._inside)


def _means(draw: Draw | None, idle: Sequence[int], new: Floats, rng: np.random.Generator) -> Floats:
    """Return a mean for each idle trial, then for each new point; random ones without a model."""
    if draw is None:
        return rng.standard_normal(len(idle) + len(new))
    return np.concatenate([draw.played[list(idle)], draw.of(new)])
