"""A Definition: what is tuned, with which environment, model, space and budget, as the lab's types.

It owns what follows from several tables together, and the rules between them. How it is read is
`lab.experiment.experiment`'s.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import inf

from lab.agent.candidate import Candidate
from lab.agent.task import Task
from lab.environments.config import EnvironmentConfig
from lab.errors import ConfigError
from lab.experiment.budget import FREE, Budget, Prices
from lab.experiment.model_schema import PricedModel, others_of
from lab.experiment.objective import Objective
from lab.experiment.schema import (
    BudgetTable,
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
        """Maximum calls of confirmation and holdout."""
        confirmed = self.confirmation.candidates * self.confirmation.episodes
        return (confirmed + (self.verdict.finalists + 1) * self.verdict.episodes) * self.task.max_steps


def _equal_turns(definition: Definition) -> Iterator[ConfigError]:
    """Confirmation and verdict play every task equally often, so that means are comparable."""
    several = max(len(definition.task.tasks), 1)
    for name, table in (("confirmation", definition.confirmation), ("verdict", definition.verdict)):
        if table.episodes % several:
            what = f"episodes = {table.episodes} must be a multiple of the number of tasks ({several})."
            yield ConfigError(what, where=f"{name}.episodes", do=f"use a multiple of {several}")


def _worst_judged(definition: Definition) -> Iterator[ConfigError]:
    several = len(definition.task.tasks)
    if definition.verdict.judge != "worst":
        return
    if several < 2 or definition.verdict.episodes < 2 * several:
        do = "add [[tasks]], and play at least two episodes of each"
        yield ConfigError('judge = "worst" needs several tasks.', where="verdict.judge", do=do)
    elif definition.objective.cost is not None:
        do = 'remove cost and within, or use judge = "mean"'
        yield ConfigError('judge = "worst" cannot be combined with a cost.', where="verdict.judge", do=do)


def _cost_and_tolerance(definition: Definition) -> Iterator[ConfigError]:
    cost, within = definition.objective.cost is not None, definition.objective.within > 0
    if cost != within:
        absent, there = ("within", "cost") if cost else ("cost", "within")
        do = f"set it, or remove {there}"
        yield ConfigError(f"objective.{absent} is missing.", where=f"objective.{there}", do=do)


def _limited(definition: Definition) -> Iterator[ConfigError]:
    do = f"set one of {', '.join(BudgetTable.model_fields)}"
    if definition.budget == Budget():
        yield ConfigError("The budget has no limit.", where="budget", do=do)


def _enough_calls(definition: Definition) -> Iterator[ConfigError]:
    kept, least = definition.verdict_calls, definition.search.headroom * definition.task.max_steps
    if definition.budget.calls < kept + least:
        what = f"{definition.budget.calls:g} calls are too few."
        why = f"confirmation and verdict need up to {kept}, the initial candidates {least}"
        do = f"use at least {kept + least}, or reduce their episodes"
        yield ConfigError(what, where="budget.calls", why=why, do=do)


def _finalists_confirmed(definition: Definition) -> Iterator[ConfigError]:
    if definition.verdict.finalists > definition.confirmation.candidates:
        do = f"use at most confirmation.candidates = {definition.confirmation.candidates}"
        what = "verdict.finalists exceeds confirmation.candidates."
        yield ConfigError(what, where="verdict.finalists", do=do)


def _dollars_priced(definition: Definition) -> Iterator[ConfigError]:
    own = f"models.{definition.baseline.model}" if definition.baseline.model else "model"
    usual = definition.prices_of(definition.model)
    prices = {own: usual, **{f"models.{name}": one.prices for name, one in definition.others.items()}}
    unknown = next((where for where, one in prices.items() if not one.known), "")
    unpriced = unknown or (own if set(prices.values()) == {FREE} else "")
    if unpriced and (definition.objective.cost == "dollars" or definition.budget.dollars < inf):
        do = "set dollars_in and dollars_out, the prices of a million tokens"
        what = "A dollar limit or cost is set, but the model has no prices."
        yield ConfigError(what, where=unpriced, do=do)


def _tokens_allowed(definition: Definition) -> Iterator[ConfigError]:
    space, most = definition.space, definition.task.max_tokens
    ends = space.free["max_tokens"].ends if "max_tokens" in space.free else (space.start.sampling.max_tokens,)
    own = definition.baseline.sampling.max_tokens
    for where, tokens in (("baseline", own), ("space", max(map(int, ends)))):
        if tokens > most and (where == "baseline" or tokens != own):
            what = f"max_tokens is {tokens}, but the task allows {most}."
            yield ConfigError(what, where=f"{where}.max_tokens", do=f"use at most {most}")


RULES: Mapping[tuple[str, ...], Callable[[Definition], Iterator[ConfigError]]] = {
    ("tasks", "confirmation.episodes", "verdict.episodes"): _equal_turns,
    ("tasks", "verdict.judge", "verdict.episodes", "objective.cost"): _worst_judged,
    ("objective.cost", "objective.within"): _cost_and_tolerance,
    ("budget",): _limited,
    ("verdict.finalists", "confirmation.candidates"): _finalists_confirmed,
    ("model", "models", "baseline.model", "objective.cost", "budget.dollars"): _dollars_priced,
    ("task.max_tokens", "baseline.max_tokens", "space.max_tokens"): _tokens_allowed,
    ("budget.calls", "confirmation", "verdict", "search.headroom", "task.max_steps"): _enough_calls,
}
"""The rules between keys, in order, by the keys that they read: none is checked if one of these is wrong."""
