"""Returns: the values that a study's trials have reported, and the figures computed from them.

The sampler and the pruner decide by these figures.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from math import isfinite

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState
from threadpoolctl import ThreadpoolController

from lab.stats.moderated_t import Floats, Spread, common_spread, p_above_zero

_ROUNDING = 1e-20

MODELLED = 400
"""Trials that a model holds at most: those with most reports, and of these the newest."""

BLAS = ThreadpoolController()
"""Limited to one thread, which is faster for matrices of a few hundred rows, 3 to 5 times on two cores."""


class Lock:
    """A lock for the threads of `study.optimize`; a copy of its owner, also by pickle, has a separate one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> "tuple[type[Lock], tuple[()]]":
        return Lock, ()


class Returns:
    """A matrix of reported values: a row per trial, a column per step; NaN where nothing was reported.

    A step is an instance (such as the seed of an episode), the same for all trials. A completed trial without
    reports has its value at step 0. Failed trials have an empty row.

    Args:
        tasks: Number of tasks that the steps play round-robin.
        figure: Reads a trial's figures by step; its reports by default.
    """

    def __init__(
        self, tasks: int = 1, figure: Callable[[FrozenTrial], Mapping[int, float]] | None = None
    ) -> None:
        self._values: Floats = np.full((64, 1), np.nan)
        self._rows, self.tasks, self._figure = 0, tasks, figure or reports
        self._unfinished, self._read = list[int](), dict[int, tuple[int, TrialState]]()
        self._counts: NDArray[np.intp] | None = None
        self._means: Floats | None = None

    def read(self, trials: Sequence[FrozenTrial], sign: float = 1.0) -> None:
        """Read all trials of a study, in the order of their numbers; values are multiplied by `sign`."""
        rows = [*self._unfinished, *range(self._rows, len(trials))]
        self._unfinished = []
        for row in rows:
            trial = trials[row]
            now = (len(trial.intermediate_values), trial.state)
            if self._read.get(row) != now:
                self._read[row] = now
                self._take(row, trial, sign)
                if trial.state.is_finished():
                    continue
            self._unfinished.append(row)

    def _take(self, row: int, trial: FrozenTrial, sign: float) -> None:
        reported = {} if trial.state is TrialState.FAIL else self._figure(trial)
        rows, steps = max(row + 1, self._rows), max(reported, default=0) + 1
        grown = (max(rows - len(self._values), 0), max(steps - self._values.shape[1], 0))
        if any(grown):
            more = (max(grown[0], len(self._values)) if grown[0] else 0, grown[1])
            self._values = np.pad(self._values, [(0, more[0]), (0, more[1])], constant_values=np.nan)
        self._rows = rows
        self._counts = self._means = None
        self._values[row] = np.nan
        for step, value in reported.items():
            self._values[row, step] = sign * value

    @property
    def values(self) -> Floats:
        """The rows read so far; not a copy."""
        return self._values[: self._rows]

    @property
    def counts(self) -> NDArray[np.intp]:
        """Number of values of each row; not a copy."""
        if self._counts is None:
            self._counts = np.isfinite(self.values).sum(axis=1)
        return self._counts

    @property
    def level(self) -> Floats:
        """The values adjusted for the difficulty of each step, so that rows with different steps compare.

        Task effects are the least squares of the additive two-way model (Yates, "The analysis of multiple
        classifications with unequal numbers", JASA 29, 1934), from rows with more than one value. Effects of
        the steps of a task are smaller: they are random effects, each shrunk by its uncertainty (Robinson,
        Statistical Science 6, 1991).
        """
        values = self.values
        if values.shape[1] == 1 or not (self.counts > 1).any():
            return values
        if self.tasks > 1:
            tasks: Floats = np.eye(self.tasks)[np.arange(values.shape[1]) % self.tasks]
            values = values - tasks @ _effects(values, tasks)[0]
        effects, errors = _effects(values, np.eye(values.shape[1]))
        variance = max(float(np.mean(effects**2 - errors)), 0.0)
        level: Floats = values - effects * variance / np.maximum(variance + errors, 1e-300)
        return level

    @property
    def means(self) -> Floats:
        """Mean of each row; 0 for an empty one; not a copy: the pruner asks at every step of an episode."""
        if self._means is None:
            self._means = np.nansum(self.level, axis=1) / np.maximum(self.counts, 1)
        return self._means

    def rival(self, row: int, least: int) -> int | None:
        """The other row with the highest mean among those with at least `least` values."""
        able = self.counts >= least
        able[row] = False
        return int(np.argmax(np.where(able, self.means, -np.inf))) if able.any() else None

    def p_behind(self, row: int, floor: Floats, extra: tuple[int, float] | None) -> float:
        """The p-value of a row being below `floor` by chance, paired by seed.

        The variance of its differences is moderated by those of all rows to the same floor.

        Args:
            floor: A value for each seed; NaN if unknown.
            extra: (step, value) to include besides the reported values.
        """
        if extra is not None and extra[0] >= len(floor):
            return 1.0  # nothing has reported that step yet
        gaps = floor - self.values
        own = gaps[row][np.isfinite(self.values[row])]
        counted = own if extra is None else np.append(own, floor[extra[0]] - extra[1])
        if not len(counted) or not np.isfinite(counted).all():
            return 1.0
        variances, df = _variances(gaps)
        others = (df > 0) & (variances > 0)
        spread = Spread(float(variances[row]), float(df[row]))
        prior = common_spread(variances[others], df[others])
        return p_above_zero(float(counted.mean()), len(counted), spread, prior)

    def modelled(self, inside: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Return the rows `inside` the space that a model is made of: the most played of too many."""
        played = np.flatnonzero((self.counts > 0) & inside)
        if len(played) > MODELLED:
            played = np.sort(played[np.lexsort((-played, -self.counts[played]))[:MODELLED]])
        return played


def _effects(values: Floats, which: Floats) -> tuple[Floats, Floats]:
    """Effects of groups of columns, and the variance of each estimate.

    Args:
        which: A row for each column of `values`, with a 1 for its group.
    """
    counts = np.isfinite(values).sum(axis=1)
    several = counts > 1
    values, counts = values[several], counts[several]
    played = np.isfinite(values)
    gaps = np.where(played, values - np.nansum(values, axis=1, keepdims=True) / counts[:, None], 0.0)
    shares = played @ which / counts[:, None]
    # The normal equations of the values within rows, summed by row. Exactly 0 where each row has one
    # group only, which those of `mixed_model.Sums` are not.
    squared = which.T @ (played.sum(axis=0)[:, None] * which) - shares.T @ (counts[:, None] * shares)
    right = which.T @ gaps.sum(axis=0)
    inverse = np.linalg.pinv(squared, rcond=1e-10, hermitian=True)
    effects = inverse @ right
    squares = max(float(np.sum(gaps**2) - right @ effects), 0.0)
    df = max(int(counts.sum()) - len(counts) - (which.shape[1] - 1), 1)
    centred: Floats = effects - effects.mean()
    errors: Floats = np.diag(inverse) * squares / df
    return centred, errors


def _variances(rows: Floats) -> tuple[Floats, Floats]:
    """Each row's sample variance over its values, and its degrees of freedom."""
    counts = np.isfinite(rows).sum(axis=1)
    df = np.maximum(counts - 1, 0)
    means = np.nansum(rows, axis=1) / np.maximum(counts, 1)
    squares = np.nansum((rows - means[:, None]) ** 2, axis=1)
    # Equal values differ by rounding, and the logarithm of that would outweigh all other variances.
    squares[squares < _ROUNDING * np.nanmax(np.abs(rows), initial=0.0) ** 2] = 0.0
    return squares / np.maximum(df, 1), df.astype(float)


def reports(trial: FrozenTrial) -> Mapping[int, float]:
    """Return a trial's reported values by step."""
    if not trial.intermediate_values and trial.state is TrialState.COMPLETE:
        return {0: trial.values[0]}
    return {step: value for step, value in trial.intermediate_values.items() if isfinite(value)}
