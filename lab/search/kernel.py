"""The kernel: how alike the effects of two points of the space are expected to be, by their parameters.

It owns a point's encoding as numbers, and the interactions that the model expects.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import factorial

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from lab.search.likeness import NO_TEXTS, Texts, likeness
from lab.search.points import Distributions, Floats, scaled

# Chosen on the training grounds of `benchmarks.landscapes`, before its test grounds were played.
_INTERACTION = 0.6
"""Weight of each parameter's kernel in the product: the higher, the stronger the expected interactions."""

_LENGTH = 1.2
"""Over which a number's effect changes; its range has a length of 2."""

_ROOTS = np.sqrt([float(factorial(order)) for order in range(10)])


def encoded(space: Distributions, points: Floats) -> Floats:
    """Return points, as rows of numbers, with each number's place in its range, from -1 to 1."""
    rows = points.copy()
    for column, distribution in enumerate(space.values()):
        if isinstance(distribution, IntDistribution | FloatDistribution):
            rows[:, column] = scaled(distribution, rows[:, column])
    return rows


@dataclass(frozen=True)
class Kernel:
    """The correlation of the effects of points of a space, which are rows of `encoded`.

    Attributes:
        categorical: Which columns are categories.
        likeness: Of the columns whose categories are texts: how alike each two of them are. Other categories
            have nothing in common.
    """

    categorical: NDArray[np.bool_]
    likeness: Mapping[int, Floats]

    @classmethod
    def of(cls, space: Distributions, texts: Texts = NO_TEXTS) -> "Kernel":
        """Return the kernel of a space."""
        kinds = {name: one for name, one in space.items() if isinstance(one, CategoricalDistribution)}
        return cls(
            np.array([name in kinds for name in space], dtype=bool),
            {
                column: likeness([texts[name].get(choice, "") for choice in kinds[name].choices])
                for column, name in enumerate(space)
                if name in kinds and name in texts
            },
        )

    def __call__(self, one: Floats, other: Floats) -> Floats:
        """Return the correlation of each point of `one` with each of `other`."""
        if not len(self.categorical):
            return np.ones((len(one), len(other)))
        unit = 1 / ((1 + _INTERACTION) ** len(self.categorical) - 1)
        product: Floats = np.full((len(one), len(other)), unit)
        factor = np.empty_like(product)  # one for all: the memory of a new one takes longer than its numbers
        for column in np.flatnonzero(self.categorical):
            mine, its = one[:, column].astype(int), other[:, column].astype(int)
            levels, alike = np.arange(mine.max(initial=0) + 1)[:, None], self.likeness.get(int(column))
            common = levels == its if alike is None else alike[levels, its]
            (1 + _INTERACTION * common).take(mine, axis=0, out=factor, mode="clip")
            product *= factor
        numbers = ~self.categorical
        for mine, its in zip(_powers(one[:, numbers].T), _powers(other[:, numbers].T), strict=True):
            np.matmul(mine, _INTERACTION * its.T, out=factor)
            factor += 1
            product *= factor
        product -= unit
        return product


def _powers(numbers: Floats) -> Floats:
    """Return features whose products are `exp(-(a - b)² / 2)` of numbers in units of the length.

    Its Taylor series, to within 1e-8 for numbers from -1 to 1 (Cotter, Keshet and Srebro, arXiv:1109.4603).
    """
    scaled_numbers = numbers.ravel() / _LENGTH
    powers = np.vander(scaled_numbers, len(_ROOTS), increasing=True)
    features: Floats = powers * np.exp(-0.5 * scaled_numbers**2)[:, None] / _ROOTS
    return features.reshape(*numbers.shape, len(_ROOTS))
