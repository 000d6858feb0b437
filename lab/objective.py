"""The Objective: what is best where candidates differ in return, and in what they cost.

It owns the rule by which one of many is chosen, for the search, the finalists and the frozen prompt alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lab.episode import Episode, Tally
from lab.evaluation import Evaluation
from lab.spending import FREE, Prices

Floats = NDArray[np.float64]
Cost = Literal["tokens", "dollars"]


@dataclass(frozen=True)
class Objective:
    """The highest mean return; with a cost, the cheapest of those nearly as good.

    Attributes:
        cost: what an episode costs, in that unit; None where the return alone counts.
        within: how far, as a share of the best return, a cheaper candidate may stay behind it.
    """

    cost: Cost | None = None
    within: float = 0.0
    prices: Prices = FREE

    def cost_of(self, episode: Episode | Tally) -> float:
        """What an episode cost, in this objective's unit; 0 where the return alone counts."""
        match self.cost:
            case "tokens":
                return float(episode.prompt_tokens + episode.completion_tokens)
            case "dollars":
                return self.prices.dollars(episode.prompt_tokens, episode.completion_tokens)
            case None:
                return 0.0

    def floor(self, best: Floats) -> Floats:
        """The returns that a candidate must reach, on the same seeds as the best one's `best`."""
        return best - self.within * np.abs(best)

    def order(self, returns: Floats, costs: Floats) -> list[int]:
        """Places from the one to choose on: within reach of the best by cost, then the rest by return."""
        if self.cost is None or not len(returns):
            return [int(place) for place in np.argsort(-returns, kind="stable")]
        near: NDArray[np.bool_] = returns >= self.floor(returns.max(keepdims=True))
        return [int(place) for place in np.lexsort((-returns, np.where(near, costs, np.inf), ~near))]

    def order_evaluations(self, evaluations: Sequence[Evaluation]) -> list[int]:
        """The same for evaluations, by their mean returns and costs."""
        if not evaluations:
            return []
        costs = [fmean(self.cost_of(episode) for episode in one.episodes) for one in evaluations]
        return self.order(np.array([one.mean_return for one in evaluations]), np.array(costs))
