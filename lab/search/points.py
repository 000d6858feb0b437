"""Points of a Space: at random, or spread out."""

import numpy as np
from numpy.typing import NDArray

from lab.agent.candidate import Setting
from lab.experiment.space import Choices, Dimension, Range, Space

Params = dict[str, Setting]


def at_random(space: Space, count: int, rng: np.random.Generator) -> list[Params]:
    """`count` points, each dimension drawn on its own."""
    return _points(space, [rng.random(count) for _ in space.free], count)


def spread_out(space: Space, count: int, rng: np.random.Generator) -> list[Params]:
    """`count` points that lie far apart: every part of every dimension is met equally often.

    A Latin hypercube: McKay, Beckman and Conover, Technometrics 21 (1979).
    """
    return _points(space, [(rng.permutation(count) + rng.random(count)) / count for _ in space.free], count)


def _points(space: Space, columns: list[NDArray[np.float64]], count: int) -> list[Params]:
    """Points from columns of numbers in [0, 1), one column a dimension."""
    values = [
        [_value(dimension, share) for share in column]
        for dimension, column in zip(space.free.values(), columns, strict=True)
    ]
    return [dict(zip(space.free, row, strict=True)) for row in zip(*values, strict=True)] or [{}] * count


def _value(dimension: Dimension, share: float) -> Setting:
    match dimension:
        case Choices(values):
            return values[int(share * len(values))]
        case Range(int(low), int(high)):
            return low + int(share * (high - low + 1))
        case Range(low, high):
            return round(low + float(share) * (high - low), 2)
