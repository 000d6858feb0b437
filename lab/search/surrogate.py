"""The surrogate: what the returns so far say about every point of the space, played or not.

A Gaussian process over points, with a random effect of each candidate and of each seed. It owns the
posterior and its draws; the kernel is `lab.search.kernel`'s, and the sampler decides what plays next.
"""

from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrs, dtrtrs

from lab.search.kernel import kernel
from lab.search.points import Floats

# Chosen on the training grounds of `benchmarks.landscapes`, before its test grounds were played.
_TASK = 100.0
"""Variance of the effect of a task, as a share of the returns'; so large that the data alone decide."""

_LEAST_CHANCE = 1e-3


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


@dataclass(frozen=True)
class Shares:
    """Logarithms of the variances, as shares of the returns' variance; the prior's centre by default."""

    signal: float = 0.0
    own: float = -3.0
    noise: float = -1.0
    seed: float = -3.0
    of_coins: bool = False

    def of(self, scale: float) -> Variances:
        """Return the variances, given the returns'."""
        return Variances(
            *(scale * float(np.exp(one)) for one in (self.signal, self.own, self.noise, self.seed))
        )

    @property
    def doubt(self) -> float:
        """Negative logarithm of the prior density, which decides while there are few returns."""
        gaps = (self.signal, self.own + 3, self.noise + 1, (self.seed + 3) / 1.5)
        return 0.5 * sum(gap**2 for gap in gaps)


_GAUSSIAN = Shares()
_COINS = Shares(signal=0.5, own=-2.0, noise=0.0, of_coins=True)
"""For returns that have one of two values; their noise follows from their chance."""


class _Sums:
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
        self.pulls: Floats = np.append(0.0, (weights * gaps).sum(axis=0))
        self.precision = np.zeros((len(self.pulls), len(self.pulls)))
        self.precision[1:, 1:] = np.diag(weights.sum(axis=0)) - share.T @ weights


class _Fit:
    """The posterior for given variances.

    `y = mean + h + seed + noise` with `h ~ N(0, signal * kernel + own * I)`: mixed-model equations
    (Henderson, Biometrics 31, 1975). The candidates are integrated out; the seeds, which are few, are solved.

    Attributes:
        score: Logarithm of the marginal likelihood, up to a constant.
        base: The mean and the seeds' effects as they are expected.
    """

    def __init__(
        self, sums: _Sums, kernel: Floats, variances: Variances, scale: float, tasks: NDArray[np.intp]
    ) -> None:
        noise = variances.noise
        within = variances.signal * kernel
        within[np.diag_indices_from(within)] += variances.own + noise / sums.counts + 1e-9 * scale
        self.root = _root_of(within)
        left = _solved(self.root, np.column_stack([sums.groups, sums.means]))
        groups, means = left[:, :-1], left[:, -1]
        prior, spread = _of_seeds(tasks, variances.seed, _TASK * scale)
        precision = groups.T @ groups + sums.precision / noise
        precision[1:, 1:] += prior
        right = groups.T @ means + sums.pulls / noise
        self.groups_root = _root_of(precision)
        self.base = _twice_solved(self.groups_root, right)
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
        return _twice_solved(self.root, gaps)


class Surrogate:
    """The model, fitted to what was played.

    A point's mean is the value of a Gaussian process (Rasmussen and Williams, "Gaussian Processes for Machine
    Learning", 2006). Its kernel is the product `prod(1 + w k) - 1` over the parameters, the ANOVA kernel,
    which has an effect of each parameter and of all their interactions (Durrande et al., Journal of
    Multivariate Analysis 115, 2013). Each candidate differs from that by a separate effect, and each seed is
    easier or harder for all candidates by the same amount. The variances are the most probable ones on a
    grid. If returns have only two values, such as 0 and 1, the model is logistic, by Laplace's approximation.

    Attributes:
        variances: Of the model's parts.
        shares: Their logarithms, as shares.

    Args:
        points: A row of `encoded` for each candidate that has played.
        values: Its returns by seed; NaN where it has not played.
        categorical: Which columns of `points` are categories.
        tasks: Kinds of seeds, which the columns go through round-robin.
        shares: The most probable ones if None, or if they are those of coins and these returns are not.
    """

    def __init__(
        self,
        points: Floats,
        values: Floats,
        categorical: NDArray[np.bool_],
        tasks: int = 1,
        shares: Shares | None = None,
    ) -> None:
        seeds = np.flatnonzero(np.isfinite(values).any(axis=0))
        values, self._tasks = values[:, seeds], seeds % tasks
        self._points, self._categorical = points, categorical
        self._kernel = kernel(points, points, categorical)
        known = np.unique(values[np.isfinite(values)])
        self._ends = (float(known[0]), float(known[-1])) if len(known) == 2 else None
        weights = np.isfinite(values).astype(float)
        if shares is not None and shares.of_coins != (self._ends is not None):
            shares = None
        if self._ends is None:
            self._scale = max(float(np.nanvar(values)), 1e-12)
            sums = _Sums(np.nan_to_num(values), weights)
            self._take(sums, shares or self._most_probable(np.nan_to_num(values), weights, _GAUSSIAN))
        else:
            self._scale = 1.0
            sums = self._coins((values == known[-1]).astype(float), weights, shares)
        base, self._groups = self._fit.base, sums.groups
        self._gaps = sums.means - self._groups @ base
        self._noise = self.variances.noise / sums.counts
        self._level = float(base[0] + (base[1:].mean() if len(base) > 1 else 0.0))

    def expected(self) -> Floats:
        """Return each played candidate's expected mean return."""
        return self._returned(self._level + self._effects(self._fit.solved(self._gaps)))

    def intervals(self, confidence: float) -> tuple[Floats, Floats]:
        """Return the ends of each played candidate's interval of its mean return, on the seeds played so far.

        They are the posterior's: the variances count as known.
        """
        fit, within = self._fit, self.variances.signal * self._kernel
        within[np.diag_indices_from(within)] += self.variances.own
        known = _solved(fit.root, within)
        seeds = self._groups.shape[1] - 1
        level = np.append(1.0, np.full(seeds, 1 / max(seeds, 1)))[:, None] - self._groups.T @ fit.solved(
            within
        )
        variances = np.diag(within) - (known**2).sum(axis=0)
        variances += (_solved(fit.groups_root, level) ** 2).sum(axis=0)
        half = NormalDist().inv_cdf((1 + confidence) / 2) * np.sqrt(np.maximum(variances, 0.0))
        middle = self._level + self._effects(fit.solved(self._gaps))
        return self._returned(middle - half), self._returned(middle + half)

    def pulled(self, means: Floats, counts: Floats) -> Floats:
        """Return the expected means of candidates that are not in the model: none is better than its median.

        Args:
            means: Of their returns, in reward.
            counts: Numbers of these.
        """
        modelled = self.expected()
        spread = float(modelled.var()) + 1e-12
        noise = self.variances.noise if self._ends is None else float(np.subtract(*self._ends)) ** 2 / 4
        middle = float(np.median(modelled))
        pulled: Floats = np.minimum(middle + spread / (spread + noise / counts) * (means - middle), middle)
        return pulled

    def draw(self, others: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Return one draw of the true means of all that have played, and of other points.

        Thompson sampling (Russo et al., "A Tutorial on Thompson Sampling", 2018): a draw of the prior is
        corrected by the observations (Wilson et al., "Pathwise Conditioning of Gaussian Processes", JMLR 22,
        2021).
        """
        fit, count = self._fit, len(self._points)
        step = rng.standard_normal(len(fit.base))
        base = _solved(fit.groups_root, step, transposed=True)
        across = kernel(others, self._points, self._categorical)
        joint = np.empty((count + len(others),) * 2)
        joint[:count, :count], joint[count:, :count] = self._kernel, across
        joint[count:, count:] = kernel(others, others, self._categorical)
        joint[np.diag_indices_from(joint)] += 1e-6
        prior = np.sqrt(self.variances.signal) * (_root_of(joint) @ rng.standard_normal(len(joint)))
        own = np.sqrt(self.variances.own) * rng.standard_normal(count)
        noise = np.sqrt(self._noise) * rng.standard_normal(count)
        gaps = self._gaps - self._groups @ base - prior[:count] - own - noise
        pulled = fit.solved(gaps)
        played = prior[:count] + own + self._effects(pulled)
        # One effect of their own for all others: the highest of many independent ones would always win.
        fresh = (
            prior[count:]
            + self.variances.signal * across @ pulled
            + np.sqrt(self.variances.own) * rng.standard_normal()
        )
        level = self._level + base[0]
        return self._returned(level + played), self._returned(level + fresh)

    def _effects(self, solved: Floats) -> Floats:
        effects: Floats = self.variances.signal * (self._kernel @ solved) + self.variances.own * solved
        return effects

    def _returned(self, values: Floats) -> Floats:
        """In reward."""
        if self._ends is None:
            return values
        low, high = self._ends
        returned: Floats = low + (high - low) / (1 + np.exp(-values))
        return returned

    def _take(self, sums: _Sums, chosen: Shares) -> None:
        self.shares, self.variances = chosen, chosen.of(self._scale)
        self._fit = _Fit(sums, self._kernel, self.variances, self._scale, self._tasks)

    def _coins(self, won: Floats, weights: Floats, known: Shares | None) -> _Sums:
        """Newton's steps to the posterior mode: coins as normal returns of the same slope and curvature."""
        chosen, chance = known or _COINS, (won.sum() + 0.5) / (weights.sum() + 1)
        logits = np.full(won.shape, float(np.log(chance / (1 - chance))))
        for step in range(6):
            chances = 1 / (1 + np.exp(-np.clip(logits, -8, 8)))
            curvature = np.maximum(chances * (1 - chances), _LEAST_CHANCE)
            normal, weighed = logits + (won - chances) / curvature, weights * curvature
            if step == 3 and known is None:  # near enough to choose by
                chosen = self._most_probable(normal, weighed, _COINS)
            sums = _Sums(normal, weighed)
            self._take(sums, chosen)
            base = self._fit.base
            own = self._effects(self._fit.solved(sums.means - sums.groups @ base))
            logits = base[0] + own[:, None] + base[1:]
        return sums

    def _most_probable(self, values: Floats, weights: Floats, start: Shares) -> Shares:
        """Coordinate-wise ascent of the posterior density, by factors of e and then of its root."""
        sums = _Sums(values, weights)

        def density(chosen: Shares) -> float:
            fit = _Fit(sums, self._kernel, chosen.of(self._scale), self._scale, self._tasks)
            return fit.score - chosen.doubt

        best, highest = start, density(start)
        names = ("signal", "own", "seed") if start is _COINS else ("noise", "seed", "signal", "own")
        for step in (1.0, 0.5):
            for name in names:
                for way in (step, -step):
                    for _ in range(8):
                        other = replace(best, **{name: getattr(best, name) + way})
                        if (found := density(other)) <= highest:
                            break
                        best, highest = other, found
        return best


def _root_of(matrix: Floats) -> Floats:
    """The lower Cholesky factor; only the matrix's lower triangle is read."""
    return np.linalg.cholesky(matrix).astype(float, copy=False)


# LAPACK's own functions: for matrices this small, `scipy.linalg`'s checks take longer than the solution.
def _solved(root: Floats, right: Floats, *, transposed: bool = False) -> Floats:
    """Solve `root x = right` for a lower triangular root, or its transpose."""
    solution: Floats = dtrtrs(root, right, lower=1, trans=int(transposed))[0]
    return solution


def _twice_solved(root: Floats, right: Floats) -> Floats:
    """Solve `root root' x = right`."""
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
