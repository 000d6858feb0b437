"""Effects of candidates beside those of seeds: how likely a table of returns is, by the size of their spread.

It owns this likelihood, in which the seeds' effects and the noise are integrated out. What a test makes of
it is `lab.search.headroom`'s.
"""

from dataclasses import dataclass

import numpy as np

from lab.search.points import Floats

_ROUNDING = 1e-12
"""Share of the squares that is no noise, but rounding."""


@dataclass(frozen=True)
class Effects:
    """The candidates' effects in coordinates in which they are independent, beside those of the seeds.

    Attributes:
        weights: How much is known of each.
        shares: Each one's squared sum, as a share of all squares within seeds.
        df: Number of values beyond one a seed.
        scale: Mean square within seeds.
    """

    weights: Floats
    shares: Floats
    df: int
    scale: float

    @classmethod
    def of(cls, values: Floats, root: Floats) -> "Effects":
        """Return those of a table; the effects' covariance is `root root'`."""
        values = values[:, np.isfinite(values).any(axis=0)]
        played = np.isfinite(values)
        each, df = played.sum(axis=0), int(played.sum()) - values.shape[1]
        gaps = np.where(played, values - np.nanmean(values, axis=0), 0.0)
        known = np.diag(played.sum(axis=1)) - (played / each) @ played.T
        weights, axes = np.linalg.eigh(root.T @ known @ root)
        weights, total = np.maximum(weights, 0.0), float((gaps**2).sum())
        if total <= _ROUNDING * float(np.nansum(values**2)):  # all equal: as if the noise were very small
            return cls(weights, weights / max(df, 1), df, 0.0)
        shares = (axes.T @ root.T @ gaps.sum(axis=1)) ** 2 / total
        return cls(weights, shares, df, total / max(df, 1))

    def log_factors(self, ratios: Floats) -> Floats:
        """Return the logarithms of the Bayes factors of these ratios against 0."""
        sizes = np.log1p(ratios[:, None] * self.weights).sum(axis=1)
        factors: Floats = -0.5 * sizes - 0.5 * self.df * np.log(self._left(ratios))
        return factors

    def noise(self, ratio: float) -> float:
        """Return the standard deviation of an episode, if this were the ratio."""
        return float(np.sqrt(self._left(np.array([ratio])) * self.scale)[0])

    def _left(self, ratios: Floats) -> Floats:
        """The share of the squares that spreads of these sizes leave to the noise."""
        factor = ratios[:, None]
        left = 1 - (factor * self.shares / (1 + factor * self.weights)).sum(axis=1)
        kept: Floats = np.maximum(left, _ROUNDING)
        return kept
