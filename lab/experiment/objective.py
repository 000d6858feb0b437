"""The Objective: the number that is maximised, and the trade-off against cost.

It owns the rule for choosing the best candidate, for the search, the finalists and the frozen prompt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lab.agent.episode import Episode, Tally
from lab.agent.evaluation import Evaluation
from lab.agent.task import Measure, Task
from lab.experiment.budget import FREE, Prices
from lab.experiment.environment_schema import Table

Floats = NDArray[np.float64]
Cost = Literal["tokens", "dollars"]


@dataclass(frozen=True)
class Objective:
    """The highest mean value; with a cost, the cheapest candidate within a tolerance of it.

    Attributes:
        cost: Unit of an episode's cost; None if only the value counts.
        within: Tolerance for a cheaper candidate, as a share of the best value.
        maximise: The number that is an episode's value, for search and verdict.
        prices: Prices of the baseline's model.
        others: Prices of the other models of the space, by name.
        stated: Whether the experiment file sets `maximise`; otherwise it follows from the task.
    """

    cost: Cost | None = None
    within: float = 0.0
    prices: Prices = FREE
    maximise: Measure = "return"
    stated: bool = False
    others: Mapping[str, Prices] = field(default_factory=dict)

    @property
    def insists_on_return(self) -> bool:
        """Whether the user accepts a lower score for a higher return."""
        return self.stated and self.maximise == "return"

    def cost_of(self, episode: Episode | Tally, model: str = "") -> float:
        """The cost in this objective's unit of an episode that `model` played; 0 if only the value counts."""
        match self.cost:
            case "tokens":
                return float(episode.prompt_tokens + episode.completion_tokens)
            case "dollars":
                prices = self.others.get(model, self.prices)
                return prices.dollars(episode.prompt_tokens, episode.completion_tokens)
            case None:
                return 0.0

    def floor(self, best: Floats) -> Floats:
        """The minimum values of a candidate, given the best one's values on the same seeds."""
        return best - self.within * np.abs(best)

    def order(self, values: Floats, costs: Floats) -> list[int]:
        """Indices, best first: those within the tolerance by cost, then the rest by value."""
        if self.cost is None or not len(values):
            return [int(place) for place in np.argsort(-values, kind="stable")]
        near: NDArray[np.bool_] = values >= self.floor(values.max(keepdims=True))
        return [int(place) for place in np.lexsort((-values, np.where(near, costs, np.inf), ~near))]

    def order_evaluations(self, evaluations: Sequence[Evaluation]) -> list[int]:
        """Indices of evaluations, best first, by their mean values and costs."""
        costs = np.array([self.mean_cost(one) for one in evaluations])
        return self.order(np.array([one.mean for one in evaluations]), costs)

    def mean_cost(self, evaluation: Evaluation) -> float:
        """The mean cost of an evaluation's episodes."""
        return fmean(self.cost_of(one, evaluation.candidate.model) for one in evaluation.episodes)


class ObjectiveTable(Table):
    """`[objective]`: the number that is maximised, and the cost; see `lab.experiment.objective.Objective`.

    Attributes:
        maximise: Return or score; by default the return if `task.score` is "sum", else the score.
        cost: Unit of an episode's cost. Requires `within`.
        within: Tolerance: the cheapest candidate whose value is within this share of the best is frozen.
    """

    maximise: Measure | None = None
    cost: Cost | None = None
    within: float | None = Field(default=None, gt=0, lt=1)


def read_objective(
    table: ObjectiveTable, task: Task, prices: Prices, others: Mapping[str, Prices]
) -> Objective:
    """The objective that a table states; the prices are those of `Objective`."""
    usual: Measure = "return" if task.score == "sum" else "score"
    maximise, stated = table.maximise or usual, table.maximise is not None
    return Objective(table.cost, table.within or 0.0, prices, maximise, stated, others)
