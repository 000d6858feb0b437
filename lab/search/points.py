"""Points of a space of Optuna distributions: drawn at random, spread out, varied, or scaled to numbers."""

from collections.abc import Mapping, Sequence
from math import floor, log
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

Distributions = Mapping[str, BaseDistribution]
"""A search space: each parameter's distribution."""

Params = dict[str, Any]
"""A point of a space: each parameter's value."""

Floats = NDArray[np.float64]

_CROSSED = 0.25
"""Share of the variations that take each parameter from one of two of the best points."""


def at_random(space: Distributions, count: int, rng: np.random.Generator) -> list[Params]:
    """Return `count` points, each parameter drawn independently."""
    return [params_of(space, row) for row in numbers_at_random(space, count, rng)]


def spread_out(space: Distributions, count: int, rng: np.random.Generator) -> list[Params]:
    """Return `count` points of a Latin hypercube: every part of every range is drawn equally often.

    McKay, Beckman and Conover, Technometrics 21 (1979). `scipy.stats.qmc` takes 0.5 s to import.
    """
    shares = [(rng.permutation(count) + rng.random(count)) / count for _ in space]
    return [params_of(space, row) for row in _at(space, shares, count)]


def numbers_at_random(space: Distributions, count: int, rng: np.random.Generator) -> Floats:
    """Return the points of `at_random` as rows of numbers: a category's index, any other value itself."""
    return _at(space, [rng.random(count) for _ in space], count)


def varied(best: Floats, fresh: Floats, rng: np.random.Generator) -> Floats:
    """Return the best points, each with some parameters of a fresh point or of another of the best."""
    if not best.size:
        return best
    count, width = fresh.shape
    one, other, new, kind = rng.random((count, 4)).T
    points, partners = best[(one * len(best)).astype(int)], best[(other * len(best)).astype(int)]
    first = (other * width).astype(int)
    second = np.where(kind > 0.8, (kind * 1e6).astype(int) % width, first)
    given = (np.arange(width) == first[:, None]) | (np.arange(width) == second[:, None])
    changed: Floats = np.where(given, fresh[(new * count).astype(int)], points)
    crossed = kind < _CROSSED
    own = rng.random((int(crossed.sum()), width)) < 0.5
    changed[crossed] = np.where(own, points[crossed], partners[crossed])
    return changed


def numbers_of(distribution: BaseDistribution, values: Sequence[Any]) -> Floats:
    """Return values as numbers: a category's index, any other value itself."""
    if isinstance(distribution, CategoricalDistribution):
        # Backwards, because Optuna takes the first of equal choices, such as 1 and True.
        places = {choice: place for place, choice in reversed(list(enumerate(distribution.choices)))}
        values = [places[value] for value in values]
    return np.array(values, dtype=float)


def row_of(space: Distributions, point: Params) -> list[float]:
    """Return the row of numbers that stands for a point."""
    return [float(numbers_of(one, [point[name]])[0]) for name, one in space.items()]


def params_of(space: Distributions, row: Floats) -> Params:
    """Return the point that a row of numbers stands for."""
    return {
        name: _value_of(one, number) for (name, one), number in zip(space.items(), row.tolist(), strict=True)
    }


def contains(distribution: BaseDistribution, value: Any) -> bool:  # noqa: ANN401  # of any category
    """Return whether a distribution contains `value`."""
    match distribution:
        case CategoricalDistribution():
            return bool(value in distribution.choices)
        case IntDistribution() | FloatDistribution():
            return bool(distribution.low <= value <= distribution.high)
    raise TypeError(f"unknown distribution: {distribution!r}")


def has_point(space: Distributions, params: Params) -> bool:
    """Return whether parameters are a point of a space; they may have others besides."""
    return all(name in params and contains(one, params[name]) for name, one in space.items())


def scaled(distribution: IntDistribution | FloatDistribution, values: Sequence[float] | Floats) -> Floats:
    """Return numbers scaled from their range to [-1, 1], by their logarithms if the range is logarithmic."""
    numbers = np.array(values, dtype=float)
    ends = np.array([distribution.low, distribution.high], dtype=float)
    if distribution.log:
        numbers, ends = np.log(numbers), np.log(ends)
    width = float(ends[1] - ends[0])
    shares: Floats = (numbers - ends[0]) / width * 2 - 1 if width > 0 else np.zeros_like(numbers)
    return shares


def _at(space: Distributions, shares: Sequence[Floats], count: int) -> Floats:
    rows = np.empty((count, len(space)))
    for column, (distribution, its) in enumerate(zip(space.values(), shares, strict=True)):
        rows[:, column] = _numbers_at(distribution, its)
    return rows


def _numbers_at(distribution: BaseDistribution, shares: Floats) -> Floats:
    """The values at `shares`, in [0, 1), of a distribution, as numbers."""
    numbers: Floats
    match distribution:
        case CategoricalDistribution():
            numbers = np.floor(shares * len(distribution.choices))
        case IntDistribution(log=True):
            low, high = log(distribution.low - 0.5), log(distribution.high + 0.5)
            whole = np.rint(np.exp(low + shares * (high - low)))
            numbers = np.clip(whole, distribution.low, distribution.high)
        case IntDistribution():
            steps = (distribution.high - distribution.low) // distribution.step + 1
            numbers = distribution.low + distribution.step * np.floor(shares * steps)
        case FloatDistribution(log=True):
            low, high = log(distribution.low), log(distribution.high)
            numbers = np.clip(np.exp(low + shares * (high - low)), distribution.low, distribution.high)
        case FloatDistribution(step=float(step)):
            count = floor((distribution.high - distribution.low) / step + 1e-9) + 1
            numbers = distribution.low + step * np.floor(shares * count)
        case FloatDistribution():
            numbers = distribution.low + shares * (distribution.high - distribution.low)
        case _:
            raise TypeError(f"unknown distribution: {distribution!r}")
    return numbers


def _value_of(distribution: BaseDistribution, number: float) -> Any:  # noqa: ANN401  # of any category
    match distribution:
        case CategoricalDistribution():
            return distribution.choices[int(number)]
        case IntDistribution():
            return int(number)
        case FloatDistribution(step=float()):
            return min(round(number, 12), distribution.high)
    return number
