"""The surrogate: what the returns so far say about every point of the space, played or not.

A Gaussian process over points, with a random effect of each candidate and of each seed. It owns the choice of
the variances, the posterior and its draws; the kernel is `lab.search.kernel`'s, the equations are
`lab.search.mixed_model`'s, and the sampler decides what plays next.
"""

from dataclasses import dataclass, replace
from functools import cache
from math import exp
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from lab.search.kernel import Kernel
from lab.search.mixed_model import Fit, Sums, Variances, root_of, solved_by
from lab.search.points import Floats

_LEAST_CHANCE = 1e-3

OWN_GROUPS = 16
"""Number of different own effects that a draw gives to the points which have not played. With one for each,
the highest of hundreds would always win; with one for all, it would seldom beat a dozen that have played, and
where most candidates are alike, the few better ones would not be met."""


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
        return Variances(*(scale * exp(one) for one in (self.signal, self.own, self.noise, self.seed)))

    @property
    def doubt(self) -> float:
        """Negative logarithm of the prior density, which decides while there are few returns."""
        gaps = (self.signal, self.own + 3, self.noise + 1, (self.seed + 3) / 1.5)
        return 0.5 * sum(gap**2 for gap in gaps)


_GAUSSIAN = Shares()
_COINS = Shares(signal=0.5, own=-2.0, noise=0.0, of_coins=True)
"""For returns that have one of two values; their noise follows from their chance."""


@dataclass(frozen=True)
class Joint:
    """The prior of the points that have played and of others together; it takes longer than a draw from it.

    Attributes:
        with_others: Correlation of each point with each of the others.
        root: Lower Cholesky factor of the correlation of all.
    """

    with_others: Floats
    root: Floats


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
        kernel: The correlation of points.
        tasks: Kinds of seeds, which the columns go through round-robin.
        among: The correlations among `points`; computed if None.
        shares: The most probable ones if None, or if they are those of coins and these returns are not.
    """

    def __init__(
        self,
        points: Floats,
        values: Floats,
        kernel: Kernel,
        tasks: int = 1,
        among: Floats | None = None,
        shares: Shares | None = None,
    ) -> None:
        seeds = np.flatnonzero(np.isfinite(values).any(axis=0))
        values, self._tasks = values[:, seeds], seeds % tasks
        has_played = np.isfinite(values)
        weights, played = has_played.astype(float), values[has_played]
        self._points, self._correlation = points, kernel
        self._kernel = kernel(points, points) if among is None else among
        known = np.unique(played)
        self._ends = (float(known[0]), float(known[-1])) if len(known) == 2 else None
        if shares is not None and shares.of_coins != (self._ends is not None):
            shares = None
        if self._ends is None:
            self._scale = max(float(played.var()), 1e-12)
            sums = Sums(np.where(has_played, values, 0.0), weights)
            self._take(sums, shares or self._most_probable(sums, _GAUSSIAN))
        else:
            self._scale = 1.0
            sums = self._coins((values == known[-1]).astype(float), weights, shares)
        base, self._groups = self._fit.base, sums.groups
        self._gaps = sums.means - self._groups @ base
        self._noise = self.variances.noise / sums.counts
        self._level = float(base[0] + (base[1:].mean() if len(base) > 1 else 0.0))
        self._middle = self._level + self._effects(self._fit.solved(self._gaps))

    def expected(self) -> Floats:
        """Return each played candidate's expected mean return."""
        return self._returned(self._middle)

    def intervals(self, confidence: float, which: NDArray[np.intp]) -> tuple[Floats, Floats]:
        """Return the ends of played candidates' intervals of their mean return, on the seeds played so far.

        They are the posterior's: the variances count as known.

        Args:
            which: Places of the candidates among `points`.
        """
        fit, within = self._fit, self.variances.signal * self._kernel[:, which]
        within[which, np.arange(len(which))] += self.variances.own
        known = solved_by(fit.root, within)
        seeds = self._groups.shape[1] - 1
        level = np.append(1.0, np.full(seeds, 1 / max(seeds, 1)))[:, None] - self._groups.T @ fit.solved(
            within
        )
        variances = within[which, np.arange(len(which))] - (known**2).sum(axis=0)
        variances += (solved_by(fit.groups_root, level) ** 2).sum(axis=0)
        half = NormalDist().inv_cdf((1 + confidence) / 2) * np.sqrt(np.maximum(variances, 0.0))
        middle = self._middle[which]
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

    def joint(self, others: Floats) -> Joint:
        """Return the prior of the points that have played, and of others, for `draw`."""
        count = len(self._points)
        with_others = self._correlation(np.vstack([self._points, others]), others)
        joint = np.empty((len(with_others),) * 2)
        joint[:count, :count], joint[:, count:] = self._kernel, with_others
        joint.flat[:: len(joint) + 1] += 1e-6
        return Joint(with_others, root_of(joint))

    def draw(self, joint: Joint, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Return one draw of the true means of all that have played, and of the others.

        Thompson sampling (Russo et al., "A Tutorial on Thompson Sampling", 2018): a draw of the prior is
        corrected by the observations (Wilson et al., "Pathwise Conditioning of Gaussian Processes", JMLR 22,
        2021).
        """
        fit, count = self._fit, len(self._points)
        step = rng.standard_normal(len(fit.base))
        base = solved_by(fit.groups_root, step, transposed=True)
        prior = np.sqrt(self.variances.signal) * (joint.root @ rng.standard_normal(len(joint.root)))
        own = np.sqrt(self.variances.own) * rng.standard_normal(count)
        noise = np.sqrt(self._noise) * rng.standard_normal(count)
        gaps = self._gaps - self._groups @ base - prior[:count] - own - noise
        pulled = fit.solved(gaps)
        played = prior[:count] + own + self._effects(pulled)
        groups = np.arange(len(prior) - count) % OWN_GROUPS
        fresh = (
            prior[count:]
            + self.variances.signal * (pulled @ joint.with_others[:count])
            + np.sqrt(self.variances.own) * rng.standard_normal(OWN_GROUPS)[groups]
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

    def _take(self, sums: Sums, chosen: Shares) -> None:
        self.shares, self.variances = chosen, chosen.of(self._scale)
        self._fit = Fit(sums, self._kernel, self.variances, self._scale, self._tasks)

    def _coins(self, won: Floats, weights: Floats, known: Shares | None) -> Sums:
        """Newton's steps to the posterior mode: coins as normal returns of the same slope and curvature."""
        chosen, chance = known or _COINS, (won.sum() + 0.5) / (weights.sum() + 1)
        logits = np.full(won.shape, float(np.log(chance / (1 - chance))))
        for step in range(6):
            chances = 1 / (1 + np.exp(-np.clip(logits, -8, 8)))
            curvature = np.maximum(chances * (1 - chances), _LEAST_CHANCE)
            sums = Sums(logits + (won - chances) / curvature, weights * curvature)
            if step == 3 and known is None:  # near enough to choose by
                chosen = self._most_probable(sums, _COINS)
            self._take(sums, chosen)
            base = self._fit.base
            own = self._effects(self._fit.solved(sums.means - sums.groups @ base))
            logits = base[0] + own[:, None] + base[1:]
        return sums

    def _most_probable(self, sums: Sums, start: Shares) -> Shares:
        """Coordinate-wise ascent of the posterior density, by factors of e and then of its root."""

        @cache
        def density(chosen: Shares) -> float:
            fit = Fit(sums, self._kernel, chosen.of(self._scale), self._scale, self._tasks)
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
