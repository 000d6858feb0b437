"""The parts of a study that must be opened: its environment, its model, and the model that proposes texts.

It owns what is opened if the budget allows no more calls: no model, and the environment only if an episode
can still end with recorded answers.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

from lab.environments.config import choose_environment
from lab.environments.environment import Environment, open_environment
from lab.errors import BudgetError, LabError
from lab.experiment.budget import PROPOSERS, Spending
from lab.experiment.experiment import Experiment
from lab.experiment.metered import Metered, out_of_budget
from lab.experiment.model_schema import PricedModel
from lab.llm.client import Endpoint, Model
from lab.llm.dialect import Dialect
from lab.llm.launch import OpeningModel, open_endpoint, opening_model
from lab.llm.settings import ModelChoice, proposer_endpoint
from lab.proposers.proposer import Proposer, make_proposer
from lab.storage.call_cache import Nothing, Recorded
from lab.storage.keys import PROPOSALS
from lab.storage.record import Record


@dataclass(frozen=True)
class Parts:
    """The opened parts; `proposer` is None if no texts are proposed.

    Attributes:
        others: Models of the space that the baseline does not play on, by name.
    """

    environment: Environment
    model: Model
    proposer: Proposer | None
    others: Mapping[str, Model] = field(default_factory=dict)


@dataclass(frozen=True)
class PartsOf:
    """Opens the parts of one study, and closes them.

    Attributes:
        on_failure: Called with the error of every failed attempt, whether a separate proposer made it, and
            the model's name if it is not the baseline's.
        on_dialect: Called with the endpoint's changed dialect, the refusal that changed it, and that name.
        say: Called with a sentence for people when the environment's server makes episodes wait.
    """

    experiment: Experiment
    model: ModelChoice
    record: Record
    spending: Spending
    on_failure: Callable[[LabError, bool, str], None]
    on_dialect: Callable[[Dialect, str, str], None]
    say: Callable[[str], None]

    @asynccontextmanager
    async def opened(self, opening: OpeningModel | None) -> AsyncIterator[Parts]:
        """Open all parts; `opening` is None if the budget allows no calls.

        Raises:
            EndpointError, EnvError: One of them cannot be opened.
        """
        async with AsyncExitStack() as stack:
            environment = await self._environment(stack, may_call=opening is not None)
            if opening is None:
                yield Parts(environment, Nothing(self._no_budget), None)
                return
            others = dict[str, Model]()
            for name, one in self.experiment.others.items():
                other = stack.enter_context(opening_model(one.choice))
                _, others[name] = await self._model(stack, other, one, name)
            usual = self.experiment.priced(self.model)
            endpoint, model = await self._model(stack, opening, usual, "")
            yield Parts(environment, model, await self._proposer(stack, endpoint, model), others)

    async def _model(
        self, stack: AsyncExitStack, opening: OpeningModel, priced: PricedModel, name: str
    ) -> tuple[Endpoint, Metered]:
        """A model, with its endpoint; it has a name if the baseline does not play on it."""
        endpoint = await stack.enter_async_context(open_endpoint(opening, priced.patience))
        endpoint.learning.on_change = lambda dialect, why: self.on_dialect(dialect, why, name)
        model = Metered(endpoint, self.spending, priced.prices, name)
        model.watch(endpoint.throttle, lambda error: self.on_failure(error, False, name))
        return endpoint, model

    async def _environment(self, stack: AsyncExitStack, *, may_call: bool) -> Environment:
        if not may_call and not self.record.unused_calls():
            return Nothing(self._no_budget)
        where = choose_environment(self.experiment.environment)
        opened = open_environment(where, self.experiment.root, self.say)
        return await stack.enter_async_context(opened)

    async def _proposer(self, stack: AsyncExitStack, endpoint: Endpoint, model: Metered) -> Proposer | None:
        proposals = self.experiment.proposals
        if proposals is None:
            return None
        model, config = replace(model, name=PROPOSERS), proposer_endpoint(endpoint.config)
        if config != endpoint.config:
            other = await stack.enter_async_context(Endpoint(config))
            model = Metered(other, self.spending, proposals.prices, PROPOSERS)
            model.watch(other.throttle, lambda error: self.on_failure(error, True, ""))
        sampling = proposals.sampling(embedded=self.model.embedded and config == endpoint.config)
        return make_proposer(proposals.proposer, Recorded(model, self.record, PROPOSALS), sampling)

    def _no_budget(self) -> BudgetError:
        return out_of_budget(self.spending.nearest_limit)
