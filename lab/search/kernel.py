"""The kernel: how alike the effects of two points of the space are expected to be, by their parameters.

It owns a point's encoding as numbers, and the interactions that the model expects.
"""

from collections.abc import Sequence
from math import factorial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution

from lab.search.points import Distributions, Floats, Params, scaled

# Chosen on the training grounds of `benchmarks.landscapes`, before its test grounds were played.
_INTERACTION = 0.6
"""Weight of each parameter's kernel in the product: the higher, the stronger the expected interactions."""

_LENGTH = 1.2
"""Over which a number's effect changes; its range has a length of 2."""

_ROOTS = np.sqrt([float(factorial(order)) for order in range(10)])


def encoded(space: Distributions, params: Sequence[Params]) -> Floats:
    """Return a row for each of `params`: a category's index, a number's place in its range from -1 to 1."""
    columns = [_column(distribution, [row[name] for row in params]) for name, distribution in space.items()]
    return np.column_stack(columns) if columns else np.zeros((len(params), 0))


def categorical(space: Distributions) -> NDArray[np.bool_]:
    """Return which columns of `encoded` are categories."""
    return np.array([isinstance(one, CategoricalDistribution) for one in space.values()], dtype=bool)


def kernel(one: Floats, other: Floats, categorical: NDArray[np.bool_]) -> Floats:
    """Return the correlation of points with others, by their parameters."""
    same = np.zeros((len(one), len(other)), dtype=np.intp)
    for column in np.flatnonzero(categorical):
        same += one[:, column, None] == other[None, :, column]
    powers: Floats = np.array([(1 + _INTERACTION) ** count for count in range(len(categorical) + 1)])
    product: Floats = powers[same]
    for column in np.flatnonzero(~categorical):
        factor = _powers(one[:, column]) @ (_INTERACTION * _powers(other[:, column])).T
        factor += 1
        product *= factor
    if len(categorical):
        product -= 1
        product /= (1 + _INTERACTION) ** len(categorical) - 1
    return product


def _powers(numbers: Floats) -> Floats:
    """Return features whose products are `exp(-(a - b)² / 2)` of numbers in units of the length.

    Its Taylor series, to within 1e-8 for numbers from -1 to 1 (Cotter, Keshet and Srebro, arXiv:1109.4603).
    """
    scaled_numbers = numbers / _LENGTH
    powers = np.vander(scaled_numbers, len(_ROOTS), increasing=True)
    features: Floats = powers * np.exp(-0.5 * scaled_numbers**2)[:, None] / _ROOTS
    return features


def _column(distribution: Any, values: Sequence[Any]) -> Floats:  # noqa: ANN401  # Optuna's, and of any category
    if isinstance(distribution, CategoricalDistribution):
        # Backwards, because Optuna takes the first of equal choices, such as 1 and True.
        places = {choice: place for place, choice in reversed(list(enumerate(distribution.choices)))}
        return np.array([places[value] for value in values], dtype=float)
    return scaled(distribution, values)
