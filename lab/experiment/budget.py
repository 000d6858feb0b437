"""The budget: calls, tokens and dollars of a whole study, and minutes of its search, spent and allowed.

It owns the counts and the limits. Every call of every model is counted here, including the proposer's. Time
ends the search but never the verdict: without a verdict, all episodes played for it would be wasted.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from math import ceil, inf

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

Calls = Counter[str]
"""Numbers of calls by model: its name in the space, or one of these."""

BASELINES, PROPOSERS, ANY = "", "the proposer's", "any"
"""The baseline's model; the one that proposes texts; and one that is not known yet."""

HARD = ("calls", "tokens", "dollars")
"""The limits that also apply to the verdict."""

COSTS = ("tokens", "dollars")
"""Those of them that a call's cost is measured by."""


@dataclass(kw_only=True)
class Spent:
    """The totals of answered calls.

    Attributes:
        dollars: Cost of the calls with a known price.
        unpriced: Number of calls without a known price.
        useless: Number of calls with an unusable answer, which were repeated.
        thinking_tokens: Those of the completion tokens with which models thought.
        estimated: Number of calls whose tokens are estimates, because the endpoint does not count them.
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dollars: float = 0.0
    unpriced: int = 0
    useless: int = 0
    thinking_tokens: int = 0
    estimated: int = 0

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def cost(self) -> float | None:
        """Cost of all calls in dollars; None if a price is unknown."""
        return None if self.unpriced else self.dollars

    def add(self, more: "Spent", times: int = 1) -> None:
        """Add other totals to these; with `times` of -1, subtract them."""
        for one in fields(Spent):
            setattr(self, one.name, getattr(self, one.name) + times * getattr(more, one.name))


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
class Spending(Spent):
    """The amounts spent so far; `clock` returns seconds.

    Attributes:
        in_flight: Number of calls without an answer yet.
        earlier_minutes: Working time of earlier processes, in minutes.
        verdict_minutes: That of earlier verdicts, which the limit does not count.
        recount: Function that counts again what other processes have spent.
        by_model: The same totals by model; see `Calls`.
        prices: Prices of the models that may play.
    """

    budget: Budget = field(default_factory=Budget)
    clock: Callable[[], float] = time.monotonic
    episodes: int = 0
    in_flight: int = 0
    earlier_minutes: float = 0.0
    verdict_minutes: float = 0.0
    recount: Callable[[], None] = lambda: None
    by_model: dict[str, Spent] = field(default_factory=dict)
    prices: Mapping[str, Prices] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._began_s = self._counted_s = self.clock()
        self._others: Mapping[str, Spent] | None = None
        self._others_rate = 0.0

    @property
    def minutes(self) -> float:
        """Working time in minutes, of this and earlier processes."""
        return self.earlier_minutes + (self.clock() - self._began_s) / 60

    @property
    def limited_minutes(self) -> float:
        """The part of `minutes` that the limit counts."""
        return self.minutes - self.verdict_minutes

    @property
    def money(self) -> str:
        """The dollars, for people; an unknown amount is not shown as 0."""
        if self.unpriced:
            return f"${self.dollars:.2f} plus an unknown amount" if self.dollars else "price unknown"
        return f"${self.dollars:.2f}" if self.dollars else "free"

    @property
    def time_is_up(self) -> bool:
        """Whether the search's minutes are used up."""
        return self.limited_minutes >= self.budget.minutes

    def minutes_for(self, calls: int) -> float:
        """Estimated minutes for this many calls, at the rate so far."""
        return calls * self.minutes / max(self.calls + self.in_flight, 1)

    def used_up(self, in_flight: int = 0) -> str | None:
        """The first limit of the whole study that is reached, as text; None if calls may be made.

        Args:
            in_flight: Number of calls without an answer yet that count too.
        """
        for name in HARD:
            limit, used = getattr(self.budget, name), getattr(self, name)
            if used + (in_flight if name == "calls" else 0) >= limit:
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
            f"{max(self.budget.minutes - self.limited_minutes, 0):.1f} of {self.budget.minutes:g} minutes"
            " of search",
        ]
        limits = (self.budget.calls, self.budget.tokens, self.budget.dollars, self.budget.minutes)
        return ", ".join(part for part, limit in zip(parts, limits, strict=True) if limit < inf)

    def room_for(self, owed: Calls, later: Calls) -> bool:
        """Whether the calls due now fit besides those reserved for later.

        Future calls are assumed to cost their model's average so far, reserved ones a quarter more, and to be
        repeated as often as calls with unusable answers have been.
        """
        due = self._with_repeats(owed.total()) + self._with_repeats(later.total())
        if self.calls + due > self.budget.calls:
            return False
        return self.calls == 0 or all(
            getattr(self, name) + self._cost(name, owed) + self._cost(name, later) * _MARGIN
            < getattr(self.budget, name)
            for name in COSTS
        )

    def progress(self, later: Calls) -> float:
        """The share of the nearest limit that is used, without the calls reserved for later."""
        if self.calls == 0:
            return 0.0
        kept = self._with_repeats(later.total())
        shares = [self.calls / max(self.budget.calls - kept, 1), self.limited_minutes / self.budget.minutes]
        for name in COSTS:
            left = getattr(self.budget, name) - self._cost(name, later) * _MARGIN
            shares.append(getattr(self, name) / max(left, 1e-9))
        return max(shares)

    def calls_in_all(self, later: Calls) -> float:
        """Estimated calls within the nearest limit, without those reserved; infinite if unlimited."""
        limit = self.budget.calls - self._with_repeats(later.total())
        progress = self.progress(later)
        return min(limit, self.calls / progress) if progress > 0 else limit

    def dearest(self, models: Iterable[str]) -> str:
        """The model whose average call costs the most: in dollars, and in tokens if none has a price."""
        return max(models, key=lambda model: [self._each(name, model) for name in ("dollars", "tokens")])

    def _with_repeats(self, calls: int) -> float:
        """The number of calls for this many usable answers: a quarter more repeats than so far."""
        repeats = self.useless / max(self.calls - self.useless, 1)
        return calls * (1 + repeats * _MARGIN)

    def _cost(self, name: str, calls: Calls) -> float:
        """The tokens or dollars of these calls and their repeats."""
        return sum(self._with_repeats(number) * self._each(name, model) for model, number in calls.items())

    def _each(self, name: str, model: str) -> float:
        """The average tokens or dollars of a model's call so far; of all calls, at its price, if none."""
        spent = self.by_model.get(model) or Spent()
        if spent.calls:
            return float(getattr(spent, name)) / spent.calls
        if name == "dollars" and model in self.prices:
            whole = self.prices[model].dollars(self.prompt_tokens, self.completion_tokens)
        else:
            whole = getattr(self, name)
        return whole / max(self.calls, 1)

    @property
    def uncounted(self) -> int:
        """Calls that other processes may have made since they were counted, at their highest rate so far."""
        return ceil(self._others_rate * (self.clock() - self._counted_s))

    def count_others(self, spent: Mapping[str, Spent]) -> None:
        """Set the totals spent by other processes, earlier or concurrent, by model."""
        earlier, before = self._others or {}, self.calls
        for model, now in spent.items():
            more = Spent()
            more.add(now)
            more.add(earlier.get(model, Spent()), times=-1)
            self._add(model, more)
        now_s = self.clock()
        if self._others is not None:
            rate = (self.calls - before) / max(now_s - self._counted_s, 1.0)
            self._others_rate = max(self._others_rate, rate)
        self._others, self._counted_s = spent, now_s

    def count(
        self, calls: int, prompt_tokens: int, completion_tokens: int, prices: Prices, model: str = BASELINES
    ) -> None:
        """Add a model's answered calls."""
        self._add(
            model,
            Spent(
                calls=calls,
                prompt_tokens=prompt_tokens,
                completion_tokens=completion_tokens,
                dollars=prices.dollars(prompt_tokens, completion_tokens),
                unpriced=0 if prices.known else calls,
            ),
        )

    def _add(self, model: str, more: Spent) -> None:
        self.add(more)
        self.by_model.setdefault(model, Spent()).add(more)
