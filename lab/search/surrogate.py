"""The surrogate: predicts the mean return of candidates with few episodes or none.

A Bayesian linear model over the space's dimensions, with a deviation for each candidate. It owns the features
and the posterior; the race decides which candidate plays next.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from lab.search.points import Distributions, Floats, Params, scaled

# Prior variances as shares of the returns' variance; replays in `benchmarks/` change little if any of them is
# halved or doubled. Replicates correct the noise's share.
_EFFECTS, _MISFIT, _NOISE = 1.0, 0.06, 0.3
_NOISE_WEIGHT = 4.0
"""Degrees of freedom of the prior noise."""


@dataclass(frozen=True)
class Played:
    """Candidates that have played, as columns.

    Attributes:
        features: One row per candidate.
        episodes: Number of episodes of each, at least 1.
        mean: Mean of its returns, in reward.
        squares: Sum of their squared differences from that mean.
    """

    features: Floats
    episodes: Floats
    mean: Floats
    squares: Floats


@dataclass(frozen=True)
class Draw:
    """One draw from the posterior of the true means.

    Attributes:
        weights: Weights of the features.
        played: Means of the candidates that have played, in reward.
    """

    weights: Floats
    played: Floats
    base: float

    def of(self, others: Floats) -> Floats:
        """Means of candidates that have not played, by their features."""
        means: Floats = self.base + others @ self.weights
        return means


class Surrogate:
    """The model, fitted to the played candidates.

    For a candidate with features `x`: true mean = `x·w + e`, `e ~ N(0, misfit)`, and `w ~ N(0, effects)`; the
    mean of n episodes adds a variance of noise / n. Posterior and draws follow Bayesian linear regression
    (Bishop, "Pattern Recognition and Machine Learning", 2006, section 3.3), with `e` predicted from the
    candidate's own episodes (best linear unbiased prediction; Robinson, Statistical Science 6, 1991).

    """

    def __init__(self, played: Played) -> None:
        self._played = played
        weights = played.episodes / played.episodes.sum()
        self._centre = float(weights @ played.mean)
        total = float(
            weights @ (played.mean - self._centre) ** 2 + played.squares.sum() / played.episodes.sum()
        )
        total = max(total, 1e-12)
        replicates = float((played.episodes - 1).sum())
        self.noise = (played.squares.sum() + _NOISE * total * _NOISE_WEIGHT) / (replicates + _NOISE_WEIGHT)
        self._misfit = _MISFIT * total
        precision = 1.0 / (self.noise / played.episodes + self._misfit)
        scaled = played.features * precision[:, None]
        self._root = np.linalg.cholesky(
            scaled.T @ played.features + np.eye(played.features.shape[1]) / (_EFFECTS * total)
        )
        self._weights = _solve(self._root, scaled.T @ (played.mean - self._centre))
        self._pull = self._misfit / (self._misfit + self.noise / played.episodes)

    def expected(self) -> Floats:
        """Expected mean return of each played candidate."""
        return self._pulled(self._weights)

    def draw(self, rng: np.random.Generator) -> Draw:
        """One draw from the posterior (Russo et al., "A Tutorial on Thompson Sampling", 2018)."""
        weights = self._weights + np.linalg.solve(self._root.T, rng.standard_normal(len(self._weights)))
        own = np.sqrt(self._misfit * (1.0 - self._pull))
        played = self._pulled(weights) + own * rng.standard_normal(len(own))
        # One misfit for all others: the highest of many independent ones would always beat the played ones.
        misfit = np.sqrt(self._misfit) * float(rng.standard_normal())
        return Draw(weights, played, self._centre + misfit)

    def _pulled(self, weights: Floats) -> Floats:
        line = self._centre + self._played.features @ weights
        pulled: Floats = line + self._pull * (self._played.mean - line)
        return pulled


def features(space: Distributions, params: Sequence[Params]) -> Floats:
    """Return a row of features for each of `params`: one column per category, two per range (x and x²)."""
    blocks = [_columns(distribution, [row[name] for row in params]) for name, distribution in space.items()]
    return np.hstack(blocks) if blocks else np.zeros((len(params), 1))


def crossed(space: Distributions, params: Sequence[Params], weights: Floats) -> Params:
    """Return the best point whose parameters each come from one of `params`.

    The model is linear, so each parameter can be chosen separately.
    """
    point, first = Params(), 0
    for name, distribution in space.items():
        block = _columns(distribution, [row[name] for row in params])
        last = first + block.shape[1]
        point[name] = params[int(np.argmax(block @ weights[first:last]))][name]
        first = last
    return point


def _columns(distribution: BaseDistribution, values: Sequence[Any]) -> Floats:
    match distribution:
        case CategoricalDistribution():
            known = distribution.choices
            return np.array([[value == one for one in known] for value in values], dtype=float).reshape(
                len(values), len(known)
            )
        case IntDistribution() | FloatDistribution():
            x = scaled(distribution, values)
            return np.column_stack([x, x**2])
    raise TypeError(f"unknown distribution: {distribution!r}")


def _solve(root: Floats, right: Floats) -> Floats:
    solved: Floats = np.linalg.solve(root.T, np.linalg.solve(root, right))
    return solved
