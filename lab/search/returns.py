"""Scores: what every candidate of a race has returned, one row each, one column for each of the seeds.

It owns the figures that follow from such rows; what is decided by them is the race's.
"""

import numpy as np
from numpy.typing import NDArray

from lab.search.surrogate import Played, Surrogate
from lab.stats.moderated_t import Floats, Spread, common_spread, p_above_zero

_ROUNDING = 1e-20

LEAST_PLAYED = 8
"""Candidates that must have played before a surrogate is fitted."""


class Scores:
    """A matrix that grows by rows; NaN where nothing was played.

    Args:
        seeds: the number of columns.
        tasks: that the columns play by turns.
    """

    def __init__(self, seeds: int, tasks: int = 1) -> None:
        self._values: Floats = np.full((64, seeds), np.nan)
        self._rows, self._tasks = 0, tasks

    @property
    def values(self) -> Floats:
        """The rows so far; not a copy."""
        return self._values[: self._rows]

    def add_row(self) -> None:
        """Make room for one more candidate."""
        if self._rows == len(self._values):
            self._values = np.vstack([self._values, np.full_like(self._values, np.nan)])
        self._rows += 1

    @property
    def counts(self) -> NDArray[np.intp]:
        """How many each has played."""
        counts: NDArray[np.intp] = np.isfinite(self.values).sum(axis=1)
        return counts

    @property
    def level(self) -> Floats:
        """The values as if all tasks were equally hard: who has played some of them can be put beside others.

        What the tasks differ by is the additive two-way model's least squares (Yates, "The analysis of
        multiple classifications with unequal numbers", JASA 29, 1934), from rows that played more than once.
        """
        values, counts = self.values, self.counts
        if self._tasks == 1 or not (counts > 1).any():
            return values
        played = np.isfinite(values) & (counts > 1)[:, None]
        rows, places = np.nonzero(played)
        which: Floats = np.eye(self._tasks)[np.arange(values.shape[1]) % self._tasks]
        shares = played @ which / np.maximum(counts, 1)[:, None]
        means = np.nansum(values, axis=1) / np.maximum(counts, 1)
        effects = np.linalg.lstsq(
            which[places] - shares[rows], values[rows, places] - means[rows], rcond=None
        )
        level: Floats = values - which @ (effects[0] - effects[0].mean())
        return level

    @property
    def means(self) -> Floats:
        """Each one's mean, 0 for those that have not played."""
        means: Floats = np.nansum(self.level, axis=1) / np.maximum(self.counts, 1)
        return means

    def rival(self, row: int, least: int) -> int | None:
        """The best mean among the others that have played at least so many."""
        able = self.counts >= least
        able[row] = False
        return int(np.argmax(np.where(able, self.means, -np.inf))) if able.any() else None

    def p_behind(self, row: int, floor: Floats, extra: tuple[int, float] | None) -> float:
        """The p-value of a row being below `floor`, seed by seed, only by chance.

        The spread of its gaps is moderated by that of all rows' gaps to the same floor.

        Args:
            floor: a value for each seed, NaN where it is not known.
            extra: (seed's place, value) to count in beside what was played.
        """
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

    def surrogate(
        self, features: Floats, inside: NDArray[np.bool_]
    ) -> tuple[NDArray[np.intp], Surrogate] | None:
        """The surrogate of what the rows `inside` the space have played, and which these are."""
        counts = self.counts
        played = np.flatnonzero((counts > 0) & inside)
        if len(played) < LEAST_PLAYED:
            return None
        means = self.means[played]
        squares = np.nansum((self.level[played] - means[:, None]) ** 2, axis=1)
        return played, Surrogate(Played(features[played], counts[played].astype(float), means, squares))


def _variances(rows: Floats) -> tuple[Floats, Floats]:
    """Each row's sample variance over what it holds, and its degrees of freedom."""
    counts = np.isfinite(rows).sum(axis=1)
    df = np.maximum(counts - 1, 0)
    means = np.nansum(rows, axis=1) / np.maximum(counts, 1)
    squares = np.nansum((rows - means[:, None]) ** 2, axis=1)
    # Equal values differ by rounding, and the logarithm of that would weigh more than all other variances.
    squares[squares < _ROUNDING * np.nanmax(np.abs(rows), initial=0.0) ** 2] = 0.0
    return squares / np.maximum(df, 1), df.astype(float)
