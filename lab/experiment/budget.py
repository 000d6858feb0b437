"""The budget: calls, tokens and dollars of a whole study, and minutes of its search, spent and allowed.

It owns the counts and the limits. Every call of every model is counted here, including the proposer's. Time
ends the search but never the verdict: without a verdict, all episodes played for it would be wasted.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field, fields
from math import inf

from lab.errors import BudgetError, CallError, LabError
from lab.llm.client import Completion, Message, Model
from lab.llm.sampling import SamplingParams
from lab.llm.throttle import Throttle

_MARGIN = 1.25
"""Assumed cost of a verdict's episode relative to the search's average: the best candidates write more."""


@dataclass(frozen=True)
class Prices:
    """Dollars per million tokens; None if unknown."""

    tokens_in: float | None = None
    tokens_out: float | None = None

    @property
    def known(self) -> bool:
        """Whether both prices are known: only then is there a cost."""
        return self.tokens_in is not None and self.tokens_out is not None

    def dollars(self, prompt_tokens: int, completion_tokens: int) -> float:
        """The cost of these tokens; an unknown price counts as 0."""
        return (prompt_tokens * (self.tokens_in or 0.0) + completion_tokens * (self.tokens_out or 0.0)) / 1e6


FREE, UNKNOWN = Prices(0.0, 0.0), Prices()

HARD = ("calls", "tokens", "dollars")
"""The limits that also apply to the verdict."""


@dataclass(frozen=True)
class Spent:
    """The totals of answered calls.

    Attributes:
        dollars: Cost of the calls with a known price.
        unpriced: Number of calls without a known price.
        useless: Number of calls with an unusable answer, which were repeated.
        thinking_tokens: Those of the completion tokens with which models thought.
        estimated: Number of calls whose tokens are estimates.
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dollars: float = 0.0
    unpriced: int = 0
    useless: int = 0
    thinking_tokens: int = 0
    estimated: int = 0

    def __add__(self, other: "Spent") -> "Spent":
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Spent(*(one + more for one, more in pairs))


@dataclass(frozen=True)
class Budget:
    """The limits; infinite if not set.

    Attributes:
        calls, tokens, dollars: Limits of the whole study; no call is made beyond them.
        minutes: Working time after which the search starts no more episodes.
    """

    calls: float = inf
    tokens: float = inf
    dollars: float = inf
    minutes: float = inf


@dataclass
class Spending:
    """The amounts spent so far; `clock` returns seconds.

    Attributes:
        calls: Number of answered model calls.
        dollars: Cost of the calls with a known price.
        unpriced: Number of calls without a known price.
        useless: Number of calls with an unusable answer, which were repeated.
        thinking_tokens: Those of the completion tokens with which models thought.
        estimated: Number of calls whose tokens are estimates, because the endpoint does not count them.
        in_flight: Number of calls without an answer yet.
        earlier_minutes: Working time of earlier processes, in minutes.
        recount: Function that counts again what other processes have spent.
    """

    budget: Budget = field(default_factory=Budget)
    clock: Callable[[], float] = time.monotonic
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dollars: float = 0.0
    unpriced: int = 0
    useless: int = 0
    thinking_tokens: int = 0
    estimated: int = 0
    episodes: int = 0
    in_flight: int = 0
    earlier_minutes: float = 0.0
    recount: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self._began_s = self.clock()
        self._others = Spent()

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def minutes(self) -> float:
        """Working time in minutes, of this and earlier processes."""
        return self.earlier_minutes + (self.clock() - self._began_s) / 60

    @property
    def money(self) -> str:
        """The dollars, for people; an unknown amount is not shown as 0."""
        if self.unpriced:
            return f"${self.dollars:.2f} plus an unknown amount" if self.dollars else "price unknown"
        return f"${self.dollars:.2f}" if self.dollars else "free"

    @property
    def time_is_up(self) -> bool:
        """Whether the search's minutes are used up."""
        return self.minutes >= self.budget.minutes

    def minutes_for(self, calls: int) -> float:
        """Estimated minutes for this many calls, at the rate so far."""
        return calls * self.minutes / max(self.calls + self.in_flight, 1)

    def minutes_left(self) -> float | None:
        """Estimated minutes to the nearest limit, at the rate so far; None if there is no rate yet."""
        names = HARD if self.time_is_up else (*HARD, "minutes")
        used = max(getattr(self, name) / getattr(self.budget, name) for name in names)
        return self.minutes * max(1 / used - 1, 0.0) if self.calls and used else None

    def used_up(self) -> str | None:
        """The first limit of the whole study that is reached, as text; None if calls may be made."""
        for name in HARD:
            limit = getattr(self.budget, name)
            if getattr(self, name) >= limit:
                return f"budget.{name} = {limit:g}"
        return None

    @property
    def nearest_limit(self) -> str:
        """The limit of the whole study with the largest share used, as text."""
        name = max(HARD, key=lambda name: getattr(self, name) / getattr(self.budget, name))
        return f"budget.{name} = {getattr(self.budget, name):g}"

    @property
    def left(self) -> str:
        """The remainder of each limit, as text; empty if there is no limit."""
        parts = [
            f"{max(self.budget.calls - self.calls, 0):,.0f} of {self.budget.calls:,.0f} calls",
            f"{max(self.budget.tokens - self.tokens, 0):,.0f} of {self.budget.tokens:,.0f} tokens",
            f"${max(self.budget.dollars - self.dollars, 0):.2f} of ${self.budget.dollars:.2f}",
            f"{max(self.budget.minutes - self.minutes, 0):.1f} of {self.budget.minutes:g} minutes of search",
        ]
        limits = (self.budget.calls, self.budget.tokens, self.budget.dollars, self.budget.minutes)
        return ", ".join(part for part, limit in zip(parts, limits, strict=True) if limit < inf)

    def room_for(self, owed_calls: int, later_calls: int) -> bool:
        """Whether the calls due now fit besides those reserved for later.

        Future calls are assumed to cost the average so far, reserved ones a quarter more, and to be repeated
        as often as calls with unusable answers have been.
        """
        owed, later = self._with_repeats(owed_calls), self._with_repeats(later_calls)
        if self.calls + owed + later > self.budget.calls:
            return False
        if self.calls == 0:
            return True
        coming = owed + later * _MARGIN
        return all(
            getattr(self, name) + coming * each < getattr(self.budget, name)
            for name, each in self._for_each_call.items()
        )

    def progress(self, later_calls: int) -> float:
        """The share of the nearest limit that is used, without the calls reserved for later."""
        if self.calls == 0:
            return 0.0
        later = self._with_repeats(later_calls)
        shares = [self.calls / max(self.budget.calls - later, 1), self.minutes / self.budget.minutes]
        for name, each in self._for_each_call.items():
            kept = each * later * _MARGIN
            shares.append(getattr(self, name) / max(getattr(self.budget, name) - kept, 1e-9))
        return max(shares)

    def _with_repeats(self, calls: int) -> float:
        """The number of calls for this many usable answers: a quarter more repeats than so far."""
        repeats = self.useless / max(self.calls - self.useless, 1)
        return calls * (1 + repeats * _MARGIN)

    @property
    def _for_each_call(self) -> dict[str, float]:
        """The average cost of a call so far."""
        return {"tokens": self.tokens / self.calls, "dollars": self.dollars / self.calls}

    def count_others(self, spent: Spent) -> None:
        """Set the totals spent by other processes, earlier or concurrent."""
        before, self._others = self._others, spent
        for one in fields(Spent):
            more = getattr(spent, one.name) - getattr(before, one.name)
            setattr(self, one.name, getattr(self, one.name) + more)

    def count(self, calls: int, prompt_tokens: int, completion_tokens: int, prices: Prices) -> None:
        """Add answered calls."""
        self.calls += calls
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens
        self.dollars += prices.dollars(prompt_tokens, completion_tokens)
        self.unpriced += 0 if prices.known else calls


@dataclass(frozen=True)
class Metered:
    """A model whose calls are counted, and refused when the budget is used up."""

    model: Model
    spending: Spending
    prices: Prices

    async def complete(
        self, messages: Sequence[Message], sampling: SamplingParams, schema: str = ""
    ) -> Completion:
        """Ask the model once; see `Endpoint.complete`.

        Raises:
            BudgetError: A limit is reached. Calls in flight at that time are still answered and counted.
        """
        if (limit := self.spending.used_up()) or self._last_is_in_flight():
            raise out_of_budget(limit or f"budget.calls = {self.spending.budget.calls:g}")
        self.spending.in_flight += 1
        try:
            completion = await self.model.complete(messages, sampling, schema)
        finally:
            self.spending.in_flight -= 1
        self.spending.count(1, completion.prompt_tokens, completion.completion_tokens, self.prices)
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
                self.spending.count(1, *error.answered, self.prices)
                self.spending.useless += 1
            on_failure(error)

        throttle.on_failure, throttle.before_retry = failed, self._check_retry

    def _check_retry(self) -> None:
        spending, budget = self.spending, self.spending.budget
        if spending.calls + spending.in_flight > budget.calls:  # this call is one of those in flight
            raise out_of_budget(f"budget.calls = {budget.calls:g}")
        for name in ("tokens", "dollars"):
            if getattr(spending, name) >= getattr(budget, name):
                raise out_of_budget(f"budget.{name} = {getattr(budget, name):g}")

    def _last_is_in_flight(self) -> bool:
        return self.spending.calls + self.spending.in_flight >= self.spending.budget.calls


def out_of_budget(limit: str) -> BudgetError:
    """The error of a call that is refused because `limit` is reached."""
    return BudgetError(
        "The budget is used up.", where=limit, do="raise the limit, and run the same command again to resume"
    )
