"""The headroom test: whether candidates differ by more than chance, before the budget is spent on the search.

About ten candidates that lie far apart play the same seeds. Where their spread is within the noise, no search
among them finds a gain that holds ("Coin Flip", arXiv 2604.14585).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.special import fdtrc

LEVEL = 0.05
"""Of the F test."""


@dataclass(frozen=True)
class Headroom:
    """What the first candidates say of all.

    Attributes:
        candidates, episodes: how many played, and how many episodes each.
        between, within: standard deviations in reward: of the candidates' true means, estimated, and of the
            episodes of one candidate.
        p_value: of the F test that all candidates are equal, in blocks by seed.
    """

    candidates: int
    episodes: int
    between: float
    within: float
    p_value: float

    @property
    def found(self) -> bool:
        """Whether the candidates differ by more than chance."""
        return self.p_value < LEVEL

    def __str__(self) -> str:
        figures = (
            f"{self.candidates} candidates x {self.episodes} episodes: spread of candidates"
            f" {self.between:.1f}, of episodes {self.within:.1f}; F test p = {self.p_value:.2g}"
        )
        if self.found:
            return f"Headroom: there is something to find ({figures})."
        return (
            f"Headroom: NONE SEEN. The candidates' spread is within the noise ({figures}). A gain may not be"
            " there to be found: widen the space, or let each candidate play more episodes."
        )


def headroom(returns: Sequence[Sequence[float]]) -> Headroom | None:
    """The F test of a randomised block design: candidates in rows, the same seeds in columns.

    Fisher, "The Design of Experiments" (1935), chapter 4; the candidates' variance is found by moments.

    Returns:
        None for fewer than 2 candidates or 2 episodes: nothing can be told.
    """
    table = np.array(returns, dtype=float)
    if table.ndim != 2 or min(table.shape) < 2:
        return None
    rows, columns = table.shape
    by_row, by_column = table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True)
    residual = table - by_row - by_column + table.mean()
    df_rows, df_rest = rows - 1, (rows - 1) * (columns - 1)
    of_rows = float(columns * by_row.var(ddof=1))
    of_rest = float((residual**2).sum() / df_rest)
    between = sqrt(max(of_rows - of_rest, 0.0) / columns)
    if of_rest == 0:  # without noise any difference counts
        return Headroom(rows, columns, between, 0.0, 0.0 if of_rows > 0 else 1.0)
    p_value = float(fdtrc(df_rows, df_rest, of_rows / of_rest))
    return Headroom(rows, columns, between, sqrt(of_rest), p_value)
