"""A ModelCost: what the episodes of one of a space's models cost, for the report and the JSON document."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from lab.agent.episode import Tally
from lab.agent.evaluation import Trial
from lab.experiment.budget import Spent
from lab.experiment.experiment import Experiment
from lab.experiment.model_schema import PricedModel
from lab.llm.settings import ModelChoice
from lab.storage.record import Record


@dataclass(frozen=True)
class ModelCost:
    """What the episodes of one model cost, with its calls for candidates that failed or were cut.

    Attributes:
        name: Its name in the space.
        model: The model, with its prices.
        candidates: Number of candidates that played on it.
        episodes: Its whole episodes.
    """

    name: str
    model: PricedModel
    candidates: int
    spent: Spent
    episodes: tuple[Tally, ...]

    @property
    def dollars(self) -> float | None:
        """Cost in dollars; None if a price is unknown."""
        return self.spent.dollars if self.model.prices.known else None

    @property
    def dollars_per_episode(self) -> float | None:
        """Mean cost of a whole episode in dollars; None without one, or if a price is unknown."""
        if not self.episodes or not self.model.prices.known:
            return None
        cost = self.model.prices.dollars
        return fmean(cost(one.prompt_tokens, one.completion_tokens) for one in self.episodes)


def costs_by_model(
    experiment: Experiment, usual: ModelChoice, record: Record, trials: Sequence[Trial]
) -> Iterator[ModelCost]:
    """The costs of each model of the space; nothing if all candidates play on one.

    Args:
        usual: The baseline's model.
    """
    if not experiment.others:
        return
    candidates = {one.digest: one for one in (experiment.baseline, *(trial.candidate for trial in trials))}
    baselines = {experiment.baseline.model: experiment.priced(usual)}
    for name, model in {**baselines, **experiment.others}.items():
        mine = [digest for digest, one in candidates.items() if one.model == name]
        key = name if name in experiment.others else ""
        spent = record.spent_elsewhere(model.prices, proposals=False, model=key, everywhere=True)
        whole = (one for (digest, _), one in record.ended.items() if digest in mine)
        yield ModelCost(name, model, len(mine), spent, tuple(one for one in whole if isinstance(one, Tally)))
