"""A PricedModel: a model that may play, with the limits on its calls, and its prices.

It owns which models a space has besides the baseline's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lab.agent.candidate import Candidate
from lab.errors import ConfigError, meant
from lab.experiment.budget import FREE, UNKNOWN, Prices
from lab.experiment.space import Space
from lab.llm.settings import ModelChoice
from lab.llm.throttle import Patience


@dataclass(frozen=True)
class PricedModel:
    """A model, the limits on its calls, and its prices: the embedded model is free if none are stated."""

    choice: ModelChoice
    patience: Patience = field(default_factory=Patience)
    prices: Prices = UNKNOWN

    def __post_init__(self) -> None:
        if self.choice.embedded and self.prices == UNKNOWN:
            object.__setattr__(self, "prices", FREE)


def others_of(space: Space, baseline: Candidate, models: Mapping[str, PricedModel]) -> dict[str, PricedModel]:
    """The models of a space that the baseline does not play on, by name.

    Args:
        models: The models of the tables `[models.NAME]`.

    Raises:
        ConfigError: A model of the space has no table.
    """
    names = space.free["model"].ends if "model" in space.free else (space.start.model,)
    for name in filter(None, names) if baseline.model else ():
        if name not in models:
            do = meant(str(name), models, "name tables [models.NAME]")
            raise ConfigError(f"Unknown model {name!r}.", where="space.model", do=do)
    return {str(name): models[str(name)] for name in names if name != baseline.model}
