"""The table of a study: its trials as the search's model sees them, and the model that is fitted to them.

It owns which trials the model holds, and when it is fitted anew; the sampler decides by its draws.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from lab.search.kernel import Kernel, encoded
from lab.search.points import Distributions, Floats, Params, has_point, row_of
from lab.search.returns import Returns
from lab.search.surrogate import Joint, Shares, Surrogate

CHOSEN_BY = (8, 12, 16, 24, 32, 48, 64)
"""Numbers of trials by which the variances are chosen; there is no model before the first of them."""

PROMPTLY, LAG = 400, 1 / 64
"""Beyond this many trials and reports, choices use a model that may lack this share of the further ones: in
a large study one more changes little, and a model takes longer than a call."""

Fitted = tuple[NDArray[np.intp], Surrogate]
"""Rows of a table, and the model of them."""


class Table:
    """A study's trials as the model sees them: a row each, with its point as numbers, and its values."""

    def __init__(self, space: Distributions, kernel: Kernel, returns: Returns) -> None:
        self.space, self._kernel, self._returns = space, kernel, returns
        self._points: Floats = np.zeros((0, len(space)))
        self._inside: NDArray[np.bool_] = np.zeros(0, dtype=bool)
        self._outside = list[int]()
        self._known = set[tuple[Any, ...]]()
        self._fit: tuple[int, Fitted | None] = (-1, None)
        self._joint: tuple[Surrogate, Floats, Joint] | None = None
        self._among = np.zeros(0, dtype=np.intp), np.zeros((0, 0))
        self._chosen_by, self._shares = b"", Shares()

    @property
    def moves(self) -> int:
        """Return the number of trials and reports so far."""
        return len(self._returns.values) + int(self._returns.counts.sum())

    def read(self, trials: Sequence[FrozenTrial], sign: float) -> None:
        """Read what is new."""
        self._returns.read(trials, sign)
        if more := len(trials) - len(self._inside):
            self._outside += range(len(self._inside), len(trials))
            self._points = np.pad(self._points, [(0, more), (0, 0)])
            self._inside = np.pad(self._inside, (0, more))
        outside, self._outside = self._outside, []
        for row in outside:
            params = trials[row].params
            if has_point(self.space, params):
                self._inside[row] = True
                self._points[row] = row_of(self.space, params)
                self._known.add(tuple(params[name] for name in self.space))
            elif not trials[row].state.is_finished():
                self._outside.append(row)  # its parameters are being sampled

    def take(self, params: Params) -> None:
        """Count the point as known: another thread may choose before the trial has its parameters."""
        self._known.add(tuple(params[name] for name in self.space))

    def is_new(self, params: Params) -> bool:
        """Return whether no trial has these parameters."""
        return tuple(params[name] for name in self.space) not in self._known

    def tried(self, name: str, numbers: Floats) -> NDArray[np.intp]:
        """Return how many trials have each of these values of a parameter, given as numbers."""
        column = self._points[self._inside, list(self.space).index(name)]
        counts: NDArray[np.intp] = np.sum(column[:, None] == numbers, axis=0)
        return counts

    @property
    def version(self) -> int:
        """Return the number of moves of which the model for choices is made."""
        self._fitted_before()
        return self._fit[0]

    def best(self, count: int) -> Floats:
        """Return the points with the highest expected means; none before there is a model."""
        fitted = self._fitted_before()
        if fitted is None:
            return self._points[:0]
        rows, surrogate = fitted
        best: Floats = self._points[rows[np.argsort(-surrogate.expected(), kind="stable")[:count]]]
        return best

    def draw(self, idle: Sequence[int], new: Floats, rng: np.random.Generator) -> Floats:
        """Return a draw of the means of the idle trials and of new points; random before there is a model.

        Args:
            new: The array of earlier draws, if the points are the same: those take less time.
        """
        fitted = self._fitted_before()
        if fitted is None:
            return rng.standard_normal(len(idle) + len(new))
        rows, surrogate = fitted
        if self._joint is None or self._joint[0] is not surrogate or self._joint[1] is not new:
            self._joint = surrogate, new, surrogate.joint(new)
        played, fresh = surrogate.draw(self._joint[2], rng)
        means = np.full(len(self._returns.values), -np.inf)
        means[rows] = played
        return np.concatenate([means[list(idle)], fresh])

    def expected(self) -> Floats:
        """Return each trial's expected mean: the model's, or its own if it is outside the space."""
        means, fitted = np.where(self._returns.counts > 0, self._returns.means, np.nan), self._fitted()
        if fitted is not None:
            rows, surrogate = fitted
            counts = self._returns.counts
            left = np.setdiff1d(np.flatnonzero(self._inside & (counts > 0)), rows)
            means[left] = surrogate.pulled(means[left], counts[left].astype(float))
            means[rows] = surrogate.expected()
        return means

    def intervals(self, confidence: float, of: Sequence[int] | None) -> tuple[Floats, Floats]:
        """Return the ends of the model's interval of each trial's mean; infinite outside the model.

        Args:
            of: Rows whose intervals are needed, because each takes time; None for all.
        """
        highs = np.full(len(self._returns.values), np.inf)
        lows, fitted = -highs, self._fitted()
        if fitted is not None:
            rows, surrogate = fitted
            which = np.arange(len(rows)) if of is None else np.flatnonzero(np.isin(rows, of))
            lows[rows[which]], highs[rows[which]] = surrogate.intervals(confidence, which)
        return lows, highs

    def _fitted_before(self) -> "Fitted | None":
        """The model for choices."""
        return self._fitted(max(self.moves - PROMPTLY, 0) * LAG)

    def _fitted(self, lag: float = 0.0) -> "Fitted | None":
        if abs(self.moves - self._fit[0]) > lag:
            self._fit = self.moves, self._model()
        return self._fit[1]

    def _model(self) -> "Fitted | None":
        """The model of all trials, with variances that are chosen by the first trials alone."""
        rows = self._returns.modelled(self._inside)
        if len(rows) < CHOSEN_BY[0]:
            return None
        points, values = encoded(self.space, self._points[rows]), self._returns.values[rows]
        first = max(count for count in CHOSEN_BY if count <= len(rows))
        among, few = self._correlations(rows, points), _whole_rungs(values[:first])
        if (known := few.tobytes()) != self._chosen_by:
            chosen = Surrogate(points[:first], few, self._kernel, self._returns.tasks, among[:first, :first])
            self._chosen_by, self._shares = known, chosen.shares
        return rows, Surrogate(points, values, self._kernel, self._returns.tasks, among, self._shares)

    def _correlations(self, rows: NDArray[np.intp], points: Floats) -> Floats:
        """The correlations among these rows; they are computed for those that the model did not have."""
        before, known = self._among
        if np.array_equal(rows, before):
            return known
        has = np.isin(rows, before)
        places, new = np.searchsorted(before, rows[has]), np.flatnonzero(~has)
        among = np.empty((len(rows), len(rows)))
        among[np.ix_(has, has)] = known[np.ix_(places, places)]
        among[new] = self._kernel(points[new], points)
        among[:, new] = among[new].T
        self._among = rows, among
        return among


def _whole_rungs(values: Floats) -> Floats:
    """Without the values of an unfinished rung of 1, 2, 4, ...: the variances are chosen less often."""
    order = np.cumsum(np.isfinite(values), axis=1)
    whole = 2 ** np.floor(np.log2(np.maximum(order[:, -1:], 1)))
    return np.where(order <= whole, values, np.nan)
