"""RaceSampler: an Optuna sampler for objectives that are the mean over many noisy instances.

From the lab it uses only `points`, `likeness`, `kernel`, `returns`, `table`, `surrogate` and `mixed_model` of
this room, and `lab.stats.moderated_t`. The caller plays the trials; `lab.search.pruner` prunes them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from lab.search.kernel import Kernel, encoded
from lab.search.likeness import NO_TEXTS, Texts
from lab.search.points import (
    Distributions,
    Floats,
    Params,
    at_random,
    numbers_at_random,
    numbers_of,
    params_of,
    varied,
)
from lab.search.returns import BLAS, Lock, Returns
from lab.search.table import Table

FRESH = 128
"""New points drawn at random for each choice; as many again are variations of the best known ones."""

BEST = 8
"""Number of best trials whose points are varied."""

DRAWS = 16
"""Number of draws whose mean stands for the expected mean of a point."""

NEW = -1
"""The choice of a new trial."""

Order = Callable[[Floats, Floats], Sequence[int]]
"""Indices, best first, given values and costs."""

Costs = Callable[[FrozenTrial], Mapping[int, float]]
"""A trial's cost by step."""


def by_value(values: Floats, costs: Floats) -> Sequence[int]:  # noqa: ARG001  # an order that has no cost
    """Return the indices by descending value."""
    order: list[int] = np.argsort(-values, kind="stable").tolist()
    return order


class RaceSampler(BaseSampler):
    """Thompson sampling over a Gaussian process of what trials reported for each instance.

    An objective reports one value for each of a list of instances: `trial.report(value, step=index)`. A new
    trial's parameters are the best of many points, by one draw from the posterior of their means (Russo et
    al., "A Tutorial on Thompson Sampling", 2018). `choose` compares them with trials that could report more.

    Args:
        space: The search space; None for the intersection of all trials so far.
        drawn: The part of it from which new points are drawn; None for all of it.
        texts: The texts that categories stand for, by parameter: what has many words in common is expected to
            return much the same.
        seed: Seed of the draws. A choice depends only on it, on the study's trials and, in a large study, on
            when the model was last made; see `lab.search.table`.
        tasks: Number of kinds of instances, which the steps play round-robin.
        order: Sorts means with their costs, best first; by default the highest mean.
        costs: Reads a trial's cost by step; None if `order` needs none.
    """

    def __init__(
        self,
        *,
        space: Distributions | None = None,
        drawn: Distributions | None = None,
        texts: Texts = NO_TEXTS,
        seed: int | None = None,
        tasks: int = 1,
        order: Order = by_value,
        costs: Costs | None = None,
    ) -> None:
        self.space, self.drawn, self._texts = space, drawn, texts
        self._tasks, self._order, self._costs = tasks, order, costs
        self._inferred = IntersectionSearchSpace(include_pruned=True)
        self._study, self._tables = "", self._empty()
        self._lock = Lock()
        self._chosen: Params | None = None
        self._pooled: tuple[tuple[Table, int], Floats, Floats] | None = None
        self.reseed_rng()
        if seed is not None:
            self._seed, self._rng = seed, np.random.default_rng(seed)

    def reseed_rng(self) -> None:
        """Change the seed; Optuna calls this when it copies a sampler to other threads."""
        self._rng = np.random.default_rng()
        self._seed = int(self._rng.integers(2**31))

    def widen(self, drawn: Distributions | None, texts: Texts) -> None:
        """Draw from now on from `drawn`, whose categories stand for these texts."""
        with self._lock:
            self.drawn, self._pooled = drawn, None
            if texts != self._texts:
                self._texts = texts
                self._tables = self._empty(self._tables[0].space)

    def infer_relative_search_space(
        self,
        study: Study,
        trial: FrozenTrial,  # noqa: ARG002  # Optuna's
    ) -> dict[str, BaseDistribution]:
        """Return the parameters that are sampled together."""
        self._raise_error_if_multi_objective(study)
        return dict(self.space) if self.space is not None else self._inferred.calculate(study)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the parameters of a new trial: those of `choose`, if it has just chosen a new one.

        For an enqueued trial with some fixed parameters, those that are expected to be the best with them.
        """
        self._raise_error_if_multi_objective(study)
        if not search_space:
            return {}
        fixed = trial.system_attrs.get("fixed_params") or {}
        with self._lock, BLAS.limit(limits=1):
            if fixed and len(fixed) < len(search_space):
                return self._completed(study, search_space, fixed)
            return self._taken(study, search_space)

    def new_params(self, study: Study) -> Params:
        """Return the parameters of a new trial, as `sample_relative` does, before there is the trial."""
        assert self.space is not None, "new_params needs a space"
        with self._lock, BLAS.limit(limits=1):
            return self._taken(study, self.space)

    def _taken(self, study: Study, space: Distributions) -> Params:
        """The point that was chosen last, or one that is chosen now; it is not chosen again."""
        if self._chosen is None:
            self._choose(study, space, [], 0)
        chosen = self._chosen or at_random(space, 1, self._rng)[0]
        self._chosen = None
        self._tables[0].take(chosen)
        return chosen

    def _completed(self, study: Study, space: Distributions, fixed: Params) -> Params:
        """The point with these parameters whose mean over `DRAWS` draws is the highest."""
        trials = study.get_trials(deepcopy=False)
        table, costs = self._read(study, space, trials)
        rng = np.random.default_rng([self._seed, table.moves])
        points = np.vstack([table.best(BEST), self._fresh(space, table, rng)])
        for column, (name, distribution) in enumerate(space.items()):
            if name in fixed:
                points[:, column] = numbers_of(distribution, [fixed[name]])
        new = encoded(space, points)
        values = np.mean([table.draw([], new, rng) for _ in range(DRAWS)], axis=0)
        priced = values if self._costs is None else costs.draw([], new, rng)
        chosen = params_of(space, points[self._order(values, priced)[0]])
        table.take(chosen)
        return chosen

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,  # noqa: ARG002  # Optuna's
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:  # noqa: ANN401  # of any category
        """Return a value drawn at random."""
        self._raise_error_if_multi_objective(study)
        return at_random({param_name: param_distribution}, 1, self._rng)[0][param_name]

    def choose(self, study: Study, idle: Sequence[int], playing: int = 0) -> int | None:
        """Return the number of the trial that should report more, or NEW if a new trial looks better.

        The next `study.ask` samples the new trial's parameters.

        Args:
            idle: Numbers of the trials that could report more.
            playing: Number of pending reports, so that concurrent choices use different draws.

        Returns:
            None if nothing is left: no trial is idle, and none of `2 * FRESH` points is new.
        """
        assert self.space is not None, "choose needs a space"
        with self._lock, BLAS.limit(limits=1):
            return self._choose(study, self.space, idle, playing)

    def expected(self, trials: Sequence[FrozenTrial]) -> Floats:
        """Return each trial's expected mean by number; NaN if nothing was reported.

        Args:
            trials: Trials of a study that maximises, the same one at each call.
        """
        with self._lock, BLAS.limit(limits=1):
            return self._maximising(trials).expected()

    def intervals(
        self, trials: Sequence[FrozenTrial], confidence: float, of: Sequence[int] | None = None
    ) -> tuple[Floats, Floats]:
        """Return the ends of the model's interval of each trial's mean; infinite outside the model.

        Args:
            trials: As in `expected`.
            of: Numbers of the trials whose intervals are needed; None for all.
        """
        with self._lock, BLAS.limit(limits=1):
            return self._maximising(trials).intervals(confidence, of)

    def _maximising(self, trials: Sequence[FrozenTrial]) -> Table:
        """The table of values of a study that maximises, up to date."""
        assert self.space is not None, "estimates need a space"
        if list(self._tables[0].space) != list(self.space):
            self._tables = self._empty(self.space)
        self._tables[0].read(trials, 1.0)
        return self._tables[0]

    def _choose(self, study: Study, space: Distributions, idle: Sequence[int], playing: int) -> int | None:
        trials = study.get_trials(deepcopy=False)
        values_table, costs_table = self._read(study, space, trials)
        rng = np.random.default_rng([self._seed, values_table.moves + playing])
        before = self._pooled
        points, new = self._pool(space, values_table, rng)
        values = costs = values_table.draw(idle, new, rng)
        if self._costs is not None:
            costs = costs_table.draw(idle, new, rng)
        for place in self._order(values, costs):
            if place < len(idle):
                return idle[place]
            if values_table.is_new(point := params_of(space, points[place - len(idle)])):
                self._chosen = point
                return NEW
        is_new = self._pooled is not before
        self._pooled = None
        return None if is_new else self._choose(study, space, idle, playing)

    def _pool(self, space: Distributions, table: Table, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """New points, as numbers and encoded; the same ones while the model is the same."""
        model = (table, table.version)
        if self._pooled is None or self._pooled[0] != model:
            fresh = self._fresh(space, table, rng)
            points = np.vstack([fresh, varied(table.best(BEST), fresh, rng)])
            self._pooled = model, points, encoded(space, points)
        return self._pooled[1:]

    def _fresh(self, space: Distributions, table: Table, rng: np.random.Generator) -> Floats:
        """Random points of `drawn`, as numbers of the space, which may have more categories.

        A category is drawn in inverse proportion to one more than the trials that have it. If all were drawn
        equally often, the one good text among many that are alike could remain untried.
        """
        within = {name: (self.drawn or space)[name] for name in space}
        points = numbers_at_random(within, FRESH, rng)
        for column, (name, one) in enumerate(within.items()):
            if isinstance(one, CategoricalDistribution):
                places = numbers_of(space[name], one.choices)
                weights = 1 / (1 + table.tried(name, places))
                points[:, column] = rng.choice(places, FRESH, p=weights / weights.sum())
        return points

    def _read(self, study: Study, space: Distributions, trials: Sequence[FrozenTrial]) -> tuple[Table, Table]:
        """All trials of the study; only new ones are read unless it is another study."""
        if self._study not in ("", study.study_name) or list(space) != list(self._tables[0].space):
            self._tables = self._empty(space)
        self._study = study.study_name
        sign = 1.0 if study.direction == StudyDirection.MAXIMIZE else -1.0
        self._tables[0].read(trials, sign)
        if self._costs is not None:
            self._tables[1].read(trials, 1.0)
        return self._tables

    def _empty(self, space: Distributions | None = None) -> tuple[Table, Table]:
        within = space or {}
        kernel = Kernel.of(within, self._texts)
        values, costs = Returns(self._tasks), Returns(self._tasks, self._costs)
        return Table(within, kernel, values), Table(within, kernel, costs)
