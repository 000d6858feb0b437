"""Mixed-model equations: what returns say about candidates and seeds, for given variances.

It owns the likelihood, the effects of seeds, and the linear algebra; `lab.search.surrogate` chooses the
variances, and draws from the posterior.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dpotrs, dtrtrs

from lab.search.points import Floats

# Once an array of 8 MB has been freed, glibc keeps the memory of smaller freed ones; before, page
# faults took a fifth of a choice's time: mallopt(3), M_MMAP_THRESHOLD.
np.empty(1 << 20)

# Chosen on the training grounds of `benchmarks.landscapes`, before its test grounds were played.
_TASK = 100.0
"""Variance of the effect of a task, as a share of the returns'; so large that the data alone decide."""


@dataclass(frozen=True)
class Variances:
    """Of the model's parts, in squared reward, or in squared units of the logit for coins.

    Attributes:
        signal: Of what the parameters say about a candidate.
        own: Of what a candidate has beyond that.
        noise: Of an episode.
        seed: Of the seeds' effects.
    """

    signal: float
    own: float
    noise: float
    seed: float


class Sums:
    """Weighted returns by candidate and seed, as the sums that the likelihood needs.

    Args:
        values: A row a candidate, a column a seed.
        weights: Of the same shape, in units of 1 / noise variance; 0 where nothing was played.
    """

    def __init__(self, values: Floats, weights: Floats) -> None:
        self.counts = weights.sum(axis=1)
        self.means = (weights * values).sum(axis=1) / self.counts
        gaps = np.where(weights > 0, values - self.means[:, None], 0.0)
        self.squares = float((weights * gaps**2).sum())
        self.spare = int((weights > 0).sum()) - len(values)
        share = weights / self.counts[:, None]
        self.groups: Floats = np.hstack([np.ones((len(values), 1)), share])
        self.columns = np.asfortranarray(np.column_stack([self.groups, self.means]))
        self.pulls: Floats = np.append(0.0, (weights * gaps).sum(axis=0))
        self.precision = np.zeros((len(self.pulls), len(self.pulls)))
        self.precision[1:, 1:] = np.diag(weights.sum(axis=0)) - share.T @ weights


class Fit:
    """The posterior for given variances.

    `y = mean + h + seed + noise` with `h ~ N(0, signal * kernel + own * I)`: mixed-model equations
    (Henderson, Biometrics 31, 1975). The candidates are integrated out; the seeds, which are few, are solved.

    Attributes:
        score: Logarithm of the marginal likelihood, up to a constant.
        base: The mean and the seeds' effects as they are expected.
    """

    def __init__(
        self, sums: Sums, kernel: Floats, variances: Variances, scale: float, tasks: NDArray[np.intp]
    ) -> None:
        noise = variances.noise
        within = variances.signal * kernel
        within.flat[:: len(within) + 1] += variances.own + noise / sums.counts + 1e-9 * scale
        self.root = root_of(within)
        left = solved_by(self.root, sums.columns)
        groups, means = left[:, :-1], left[:, -1]
        prior, spread = _of_seeds(tasks, variances.seed, _TASK * scale)
        precision = groups.T @ groups + sums.precision / noise
        precision[1:, 1:] += prior
        right = groups.T @ means + sums.pulls / noise
        self.groups_root = root_of(precision)
        self.base = twice_solved(self.groups_root, right)
        self.score = -0.5 * (
            2 * float(np.log(np.diag(self.root)).sum() + np.log(np.diag(self.groups_root)).sum())
            + sums.spare * float(np.log(noise))
            + spread
            + float(means @ means)
            + sums.squares / noise
            - float(right @ self.base)
        )

    def solved(self, gaps: Floats) -> Floats:
        """Return `gaps` divided by the covariance of the candidates' means."""
        return twice_solved(self.root, gaps)


# LAPACK's own functions: for matrices this small, `scipy.linalg`'s checks take longer than the solution.
def root_of(matrix: Floats) -> Floats:
    """Return the lower Cholesky factor of a symmetric matrix, of which only the upper half is read.

    The matrix is overwritten.

    Raises:
        LinAlgError: The matrix is not positive definite.
    """
    # The transpose has the order of LAPACK's arrays: nothing is copied.
    root, failed = dpotrf(matrix.T, lower=1, overwrite_a=1)
    if failed:
        raise np.linalg.LinAlgError(f"minor {failed} is not positive")
    factor: Floats = root
    return factor


def solved_by(root: Floats, right: Floats, *, transposed: bool = False) -> Floats:
    """Return the solution of `root x = right` for a lower triangular root, or its transpose."""
    solution: Floats = dtrtrs(root, right, lower=1, trans=int(transposed))[0]
    return solution


def twice_solved(root: Floats, right: Floats) -> Floats:
    """Return the solution of `root root' x = right`."""
    solution: Floats = dpotrs(root, right, lower=1)[0]
    return solution


def _of_seeds(tasks: NDArray[np.intp], variance: float, of_tasks: float) -> tuple[Floats, float]:
    """Return the precision of the seeds' effects, and the logarithm of their covariance's determinant.

    Args:
        tasks: Each seed's task.
    """
    count = len(tasks)
    if not tasks.any():
        return np.eye(count) / variance, count * float(np.log(variance))
    covariance = variance * np.eye(count) + of_tasks * (tasks[:, None] == tasks[None, :])
    precision: Floats = np.linalg.inv(covariance)
    return precision, float(np.linalg.slogdet(covariance)[1])
