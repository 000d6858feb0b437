"""A Definition: what is tuned, with which environment, model, space and budget, as the lab's types.

It owns what follows from several tables together. How it is read is `lab.experiment.experiment`'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from lab.agent.candidate import Candidate
from lab.agent.task import Task
from lab.environments.config import EnvironmentConfig
from lab.experiment.budget import Budget, Prices
from lab.experiment.models import PricedModel, others_of
from lab.experiment.objective import Objective
from lab.experiment.schema import (
    ConfirmationTable,
    ProposalsTable,
    SearchTable,
    TrackingTable,
    VerdictTable,
)
from lab.experiment.space import Space
from lab.llm.settings import ModelChoice
from lab.llm.throttle import Patience


@dataclass(frozen=True)
class Definition:
    """What an experiment defines; `lab.experiment.experiment.Experiment` describes the fields."""

    name: str
    about: str
    seed: int
    environment: EnvironmentConfig
    task: Task
    model: ModelChoice
    patience: Patience
    baseline: Candidate
    space: Space
    prices: Prices
    budget: Budget
    objective: Objective
    search: SearchTable
    proposals: ProposalsTable | None
    confirmation: ConfirmationTable
    verdict: VerdictTable
    tracking: TrackingTable
    models: Mapping[str, PricedModel]

    def prices_of(self, model: ModelChoice) -> Prices:
        """The prices of `model`: from the file; the embedded model is free if the file sets none."""
        return self.priced(model).prices

    def priced(self, model: ModelChoice) -> PricedModel:
        """The baseline's model `model`, with the file's limits and prices."""
        return PricedModel(model, self.patience, self.prices)

    @property
    def others(self) -> Mapping[str, PricedModel]:
        """The models of the space that the baseline does not play on, by name."""
        return others_of(self.space, self.baseline, self.models)

    def played_by(self, candidate: Candidate, usual: ModelChoice) -> PricedModel:
        """The model that plays a candidate.

        Args:
            usual: The baseline's model.
        """
        return self.others.get(candidate.model) or self.priced(usual)

    def models_text(self, usual: ModelChoice) -> str:
        """The baseline's model `usual`, and the others of the space, for people."""
        choices = [usual, *(one.choice for one in self.others.values())]
        return " and ".join(f"{one.name} at {one.shown}" for one in choices)

    @property
    def verdict_calls(self) -> int:
        """Maximum calls of confirmation and holdout, which are reserved."""
        confirmed = self.confirmation.candidates * self.confirmation.episodes
        return (confirmed + (self.verdict.finalists + 1) * self.verdict.episodes) * self.task.max_steps
