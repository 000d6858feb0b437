"""Budgets: spending is counted exactly, and no limit is exceeded by more than the calls in flight."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.agent.candidate import Candidate
from lab.agent.episode import Ending, FailedEpisode, Tally
from lab.agent.task import Task
from lab.agent.template import PromptTemplate
from lab.errors import BudgetError, CallError
from lab.experiment.budget import BASELINES, FREE, UNKNOWN, Budget, Calls, Prices, Spending, Spent
from lab.experiment.metered import Metered
from lab.llm.client import Completion, Message
from lab.llm.sampling import SamplingParams
from lab.search.running import usual_calls
from lab.storage.keys import EpisodeKey

ASK = [Message("user", "?")]
IN_FLIGHT = 8


def calls(number: int) -> Calls:
    """Calls of the baseline's model."""
    return Calls({BASELINES: number})


class SlowModel:
    """Answers after a moment, with 100 tokens in and 50 out."""

    def __init__(self) -> None:
        self.calls = 0

    async def complete(self, *_: Sequence[Message] | SamplingParams | str, schema: str = "") -> Completion:  # noqa: ARG002
        self.calls += 1
        await asyncio.sleep(0)
        return Completion("yes", "stop", 100, 50, 0.5)


class Clock:
    """A clock that advances only on request."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def spend(budget: Budget, wanted: int) -> tuple[SlowModel, Spending, int]:
    """Make `wanted` concurrent calls: the model, the count, and the number of refused calls."""
    model, spending = SlowModel(), Spending(budget, Clock())

    async def run() -> int:
        metered, slots = Metered(model, spending, Prices(10.0, 20.0)), asyncio.Semaphore(IN_FLIGHT)

        async def ask() -> bool:
            async with slots:
                try:
                    await metered.complete(ASK, SamplingParams())
                except BudgetError:
                    return False
                return True

        return sum(not done for done in await asyncio.gather(*(ask() for _ in range(wanted))))

    return model, spending, asyncio.run(run())


@given(st.integers(1, 60), st.integers(0, 80))
def test_calls_end_exactly_at_their_limit(limit: int, wanted: int) -> None:
    model, spending, refused = spend(Budget(calls=limit), wanted)
    assert model.calls == spending.calls == min(limit, wanted)
    assert refused == max(wanted - limit, 0)


@given(st.sampled_from(["tokens", "dollars"]), st.integers(1, 60))
def test_other_limits_are_passed_by_no_more_than_the_calls_in_flight(name: str, calls: int) -> None:
    each = {"tokens": 150.0, "dollars": (100 * 10.0 + 50 * 20.0) / 1e6}[name]
    budget = Budget(tokens=calls * each) if name == "tokens" else Budget(dollars=calls * each * 0.999)
    model, spending, refused = spend(budget, 100)
    assert calls <= model.calls == spending.calls < calls + IN_FLIGHT
    assert refused == 100 - model.calls


def test_tokens_and_dollars_are_counted() -> None:
    _, spending, _ = spend(Budget(), 10)
    assert (spending.prompt_tokens, spending.completion_tokens, spending.tokens) == (1000, 500, 1500)
    assert spending.dollars == pytest.approx(0.02)


def test_time_ends_the_search_and_forbids_no_call() -> None:
    clock = Clock()
    spending = Spending(Budget(minutes=2), clock)
    assert not spending.time_is_up
    clock.now = 121.0
    assert spending.time_is_up
    assert spending.used_up() is None
    asyncio.run(Metered(SlowModel(), spending, Prices()).complete(ASK, SamplingParams()))
    assert spending.room_for(calls(30), calls(50))


def test_the_remainder_of_each_limit_is_shown() -> None:
    clock = Clock()
    spending = Spending(Budget(calls=1_000, dollars=2.0, minutes=10), clock)
    clock.now = 90.0
    spending.count(40, 100_000, 0, Prices(5.0, 5.0))
    assert spending.left == "960 of 1,000 calls, $1.50 of $2.00, 8.5 of 10 minutes of search"
    assert spending.nearest_limit == "budget.dollars = 2"


def test_the_error_names_the_limit() -> None:
    spending = Spending(Budget(calls=1), Clock(), calls=1)
    with pytest.raises(BudgetError, match=r"budget\.calls = 1") as caught:
        asyncio.run(Metered(SlowModel(), spending, Prices()).complete(ASK, SamplingParams()))
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    ("budget", "fits"),
    [
        (Budget(calls=100), True),
        (Budget(calls=89), False),  # 10 made, 30 owed, 50 for later
        (Budget(calls=90), True),
        (Budget(tokens=20_000), True),
        (Budget(tokens=10_000), False),
    ],
)
def test_reserved_calls_are_not_spent(budget: Budget, fits: bool) -> None:
    clock = Clock()
    spending = Spending(budget, clock)
    for _ in range(10):
        spending.count(1, 100, 50, Prices())
    clock.now = 60.0
    assert spending.room_for(calls(30), calls(50)) is fits


@pytest.mark.parametrize(("useless", "fits"), [(0, True), (2, True), (4, False)])
def test_answers_of_no_use_are_expected_again(useless: int, fits: bool) -> None:
    """10 made, 80 needed: with 2 of 10 useless that is 105 calls, with 4 of 10 it is 147."""
    spending = Spending(Budget(calls=120), Clock(), calls=10, useless=useless)
    assert spending.room_for(calls(30), calls(50)) is fits
    assert (spending.progress(calls(50)) == pytest.approx(10 / 70)) is (useless == 0)


def test_calls_in_flight_have_had_their_time_when_the_verdicts_is_estimated() -> None:
    clock = Clock()
    spending = Spending(Budget(minutes=10), clock, in_flight=31)
    spending.count(1, 100, 50, Prices())
    clock.now = 32.0
    assert spending.minutes_for(600) == pytest.approx(10.0)


def test_progress_is_that_of_the_limit_which_is_nearest() -> None:
    clock = Clock()
    spending = Spending(Budget(calls=150, minutes=100), clock)
    assert spending.progress(calls(50)) == 0.0
    for _ in range(25):
        spending.count(1, 1, 1, Prices())
    clock.now = 60.0
    assert spending.progress(calls(50)) == pytest.approx(0.25)


def test_others_are_expected_to_spend_on_at_their_highest_rate_until_they_are_counted_again() -> None:
    clock = Clock()
    spending, seen = Spending(Budget(calls=1000), clock), list[int]()
    for now_s, by_others in [(0.0, 500), (2.0, 540), (4.0, 550)]:  # 500 of earlier processes; then 20/s, 5/s
        clock.now = now_s
        spending.count_others({BASELINES: Spent(calls=by_others)})
        clock.now += 1.5
        seen.append(spending.uncounted)
    assert seen == [0, 30, 30]
    assert spending.calls == 550


def test_calls_without_a_price_are_never_shown_as_free() -> None:
    spending = Spending(Budget())
    spending.count(1, 100, 50, FREE)
    assert spending.money == "free"
    spending.count(1, 100, 50, UNKNOWN)
    assert (spending.money, spending.unpriced) == ("price unknown", 1)
    spending.count(1, 1_000_000, 0, Prices(2.0, 1.0))
    assert spending.money == "$2.00 plus an unknown amount"
    assert not Prices(tokens_in=1.0).known  # half a price tells no cost


ONE = Candidate(PromptTemplate("one", "s", "t"))
TASK = Task("t", "b", max_steps=20, max_tokens=10, max_return=1.0, success_score=0.5)


def usual(lengths: Sequence[int], others: Sequence[int] = (), episodes: int = 16) -> float:
    """The calls reserved for each further episode after ones of these lengths, and of others' lengths."""
    own = {(ONE.digest, seed): length for seed, length in enumerate(lengths)}
    all_of_them = {**own, **{("other", seed): length for seed, length in enumerate(others)}}
    ended: dict[EpisodeKey, Ending] = {
        key: Tally(key[1], (0.0,) * calls, calls, 0, 0, 0, 0, None) for key, calls in all_of_them.items()
    }
    ended[ONE.digest, 99] = FailedEpisode(99, CallError("No."))
    return usual_calls([ONE], ended, episodes, TASK)[ONE.digest]


def test_an_episode_may_be_as_long_as_possible_until_shorter_ones_are_seen() -> None:
    assert usual([]) == usual([], others=[1] * 50) == 20
    assert usual([20] * 8) == 20
    assert usual([1]) > 10  # one short episode promises little
    assert usual([3] * 30) < 6


@given(st.lists(st.integers(1, 20), max_size=30), st.lists(st.integers(1, 20), max_size=30))
def test_no_more_is_reserved_than_an_episode_can_take(own: list[int], others: list[int]) -> None:
    assert (np.mean(own) if own else 20) <= usual(own, others) <= 20


@pytest.mark.parametrize("kind", ["geometric", "short or long", "even"])
@pytest.mark.parametrize("seen", [4, 30])
def test_the_reserve_is_enough_for_the_verdict_in_19_of_20_studies(kind: str, seen: int) -> None:
    rng = np.random.default_rng(7)

    def lengths(number: int) -> list[int]:
        drawn = {
            "geometric": np.minimum(rng.geometric(0.25, number), 20),
            "short or long": np.where(rng.random(number) < 0.8, 2, 20),
            "even": rng.integers(1, 21, number),
        }
        return [int(one) for one in drawn[kind]]

    enough = [usual(lengths(seen), lengths(60)) >= np.mean(lengths(16)) for _ in range(1_000)]
    assert np.mean(enough) >= 0.95
