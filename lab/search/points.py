"""Points of a search space of Optuna distributions: drawn at random, spread out, or scaled to numbers."""

from collections.abc import Mapping, Sequence
from math import floor, log
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

Distributions = Mapping[str, BaseDistribution]
"""A search space: each parameter's distribution."""

Params = dict[str, Any]
"""A point of a space: each parameter's value."""

Floats = NDArray[np.float64]


def at_random(space: Distributions, count: int, rng: np.random.Generator) -> list[Params]:
    """Return `count` points, each parameter drawn independently."""
    return _points(space, [rng.random(count) for _ in space], count)


def spread_out(space: Distributions, count: int, rng: np.random.Generator) -> list[Params]:
    """Return `count` points of a Latin hypercube: every part of every range is drawn equally often.

    McKay, Beckman and Conover, Technometrics 21 (1979). `scipy.stats.qmc` takes 0.5 s to import.
    """
    return _points(space, [(rng.permutation(count) + rng.random(count)) / count for _ in space], count)


def value_at(distribution: BaseDistribution, share: float) -> Any:  # noqa: ANN401  # of any category
    """Return the value at `share`, in [0, 1), of a distribution."""
    return values_at(distribution, np.array([share]))[0]


def values_at(distribution: BaseDistribution, shares: Floats) -> list[Any]:
    """Return the values at `shares`, in [0, 1), of a distribution."""
    match distribution:
        case CategoricalDistribution():
            choices = distribution.choices
            return [choices[place] for place in (shares * len(choices)).astype(int).tolist()]
        case IntDistribution(log=True):
            low, high = log(distribution.low - 0.5), log(distribution.high + 0.5)
            whole = np.rint(np.exp(low + shares * (high - low)))
            return list(np.clip(whole, distribution.low, distribution.high).astype(int).tolist())
        case IntDistribution():
            steps = (distribution.high - distribution.low) // distribution.step + 1
            return list((distribution.low + distribution.step * (shares * steps).astype(int)).tolist())
        case FloatDistribution(log=True):
            low, high = log(distribution.low), log(distribution.high)
            values = np.exp(low + shares * (high - low))
            return list(np.clip(values, distribution.low, distribution.high).tolist())
        case FloatDistribution(step=float(step)):
            count = floor((distribution.high - distribution.low) / step + 1e-9) + 1
            values = distribution.low + step * (shares * count).astype(int)
            return [min(round(value, 12), distribution.high) for value in values.tolist()]
        case FloatDistribution():
            return list((distribution.low + shares * (distribution.high - distribution.low)).tolist())
    raise TypeError(f"unknown distribution: {distribution!r}")


def contains(distribution: BaseDistribution, value: Any) -> bool:  # noqa: ANN401  # of any category
    """Return whether a distribution contains `value`."""
    match distribution:
        case CategoricalDistribution():
            return bool(value in distribution.choices)
        case IntDistribution() | FloatDistribution():
            return bool(distribution.low <= value <= distribution.high)
    raise TypeError(f"unknown distribution: {distribution!r}")


def scaled(distribution: IntDistribution | FloatDistribution, values: Sequence[float]) -> Floats:
    """Return numbers scaled from their range to [-1, 1], by their logarithms if the range is logarithmic."""
    numbers = np.array(values, dtype=float)
    ends = np.array([distribution.low, distribution.high], dtype=float)
    if distribution.log:
        numbers, ends = np.log(numbers), np.log(ends)
    width = float(ends[1] - ends[0])
    shares: Floats = (numbers - ends[0]) / width * 2 - 1 if width > 0 else np.zeros_like(numbers)
    return shares


def _points(space: Distributions, columns: Sequence[Floats], count: int) -> list[Params]:
    values = [values_at(*one) for one in zip(space.values(), columns, strict=True)]
    return [dict(zip(space, row, strict=True)) for row in zip(*values, strict=True)] or [{}] * count
