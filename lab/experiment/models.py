"""A PricedModel: a model that may play, with the limits on its calls, and its prices."""

from dataclasses import dataclass, field

from lab.experiment.budget import FREE, UNKNOWN, Prices
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
