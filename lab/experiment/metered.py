"""A Metered model: one whose calls are counted, and refused once the budget is used up."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lab.errors import BudgetError, CallError, LabError
from lab.experiment.budget import BASELINES, Prices, Spending
from lab.llm.client import Completion, Message, Model
from lab.llm.sampling import SamplingParams
from lab.llm.throttle import Throttle


@dataclass(frozen=True)
class Metered:
    """A model whose calls are counted, and refused when the budget is used up.

    Attributes:
        name: The model that its calls are counted for; see `lab.experiment.budget.Calls`.
    """

    model: Model
    spending: Spending
    prices: Prices
    name: str = BASELINES

    async def complete(
        self, messages: Sequence[Message], sampling: SamplingParams, schema: str = ""
    ) -> Completion:
        """Ask the model once; see `Endpoint.complete`.

        Raises:
            BudgetError: A limit is reached. Calls in flight at that time are still answered and counted.
        """
        self._check(self.spending.in_flight)
        self.spending.in_flight += 1
        try:
            completion = await self.model.complete(messages, sampling, schema)
        finally:
            self.spending.in_flight -= 1
        tokens = (completion.prompt_tokens, completion.completion_tokens)
        self.spending.count(1, *tokens, self.prices, self.name)
        self.spending.thinking_tokens += completion.thinking_tokens
        self.spending.estimated += completion.estimated
        return completion

    def watch(self, throttle: Throttle, on_failure: Callable[[LabError], None]) -> None:
        """Count attempts with unusable answers, and prevent retries beyond the budget.

        Args:
            throttle: The endpoint's throttle.
            on_failure: Called with the error of every failed attempt.
        """

        def failed(error: LabError) -> None:
            if isinstance(error, CallError) and error.answered is not None:
                self.spending.count(1, *error.answered, self.prices, self.name)
                self.spending.useless += 1
            on_failure(error)

        def check_retry() -> None:
            self._check(self.spending.in_flight - 1)  # the retried call is one of those in flight

        throttle.on_failure, throttle.before_retry = failed, check_retry

    def _check(self, in_flight: int) -> None:
        if limit := self.spending.used_up(in_flight):
            raise out_of_budget(limit)


def out_of_budget(limit: str) -> BudgetError:
    """The error of a call that is refused because `limit` is reached."""
    return BudgetError(
        "The budget is used up.", where=limit, do="raise the limit, and run the same command again to resume"
    )
