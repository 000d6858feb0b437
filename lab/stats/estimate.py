"""An Estimate: a mean with its interval, without the numerical libraries that compute one."""

from dataclasses import dataclass
from math import isfinite


@dataclass(frozen=True)
class Estimate:
    """A mean with its two-sided interval.

    Attributes:
        n: Number of values.
    """

    mean: float
    low: float
    high: float
    n: int

    @property
    def bounded(self) -> bool:
        """Whether both ends of the interval are known."""
        return isfinite(self.low) and isfinite(self.high)
