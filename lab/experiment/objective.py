"""The Objective: which number is maximised, and what is best where candidates also differ in cost.

It owns the rule by which one of many is chosen, for the search, the finalists and the frozen prompt alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lab.agent.episode import Episode, Tally
from lab.agent.evaluation import Evaluation
from lab.agent.task import Measure
from lab.experiment.budget import FREE, Prices

Floats = NDArray[np.float64]
Cost = Literal["tokens", "dollars"]


@dataclass(frozen=True)
class Objective:
    """The highest mean value; with a cost, the cheapest of those nearly as good.

    Attributes:
        cost: what an episode costs, in that unit; None where the value alone counts.
        within: how far, as a share of the best value, a cheaper candidate may stay behind it.
        maximise: the number that is an episode's value, for the search and for the verdict.
        stated: whether the user's experiment file names `maximise`; else it follows from the task.
    """

    cost: Cost | None = None
    within: float = 0.0
    prices: Prices = FREE
    maximise: Measure = "return"
    stated: bool = False

    @property
    def insists_on_return(self) -> bool:
        """Whether the user accepts a lower score for a higher return."""
        return self.stated and self.maximise == "return"

    def cost_of(self, episode: Episode | Tally) -> float:
        """What an episode cost, in this objective's unit; 0 where the value alone counts."""
        match self.cost:
            case "tokens":
                return float(episode.prompt_tokens + episode.completion_tokens)
            case "dollars":
                return self.prices.dollars(episode.prompt_tokens, episode.completion_tokens)
            case None:
                return 0.0

    def floor(self, best: Floats) -> Floats:
        """The values that a candidate must reach, on the same seeds as the best one's `best`."""
        return best - self.within * np.abs(best)

    def order(self, values: Floats, costs: Floats) -> list[int]:
        """Places from the one to choose on: within reach of the best by cost, then the rest by value."""
        if self.cost is None or not len(values):
            return [int(place) for place in np.argsort(-values, kind="stable")]
        near: NDArray[np.bool_] = values >= self.floor(values.max(keepdims=True))
        return [int(place) for place in np.lexsort((-values, np.where(near, costs, np.inf), ~near))]

    def order_evaluations(self, evaluations: Sequence[Evaluation]) -> list[int]:
        """The same for evaluations, by their mean values and costs."""
        if not evaluations:
            return []
        costs = [fmean(self.cost_of(episode) for episode in one.episodes) for one in evaluations]
        return self.order(np.array([one.mean for one in evaluations]), np.array(costs))
