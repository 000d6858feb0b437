"""A Ground on a real endpoint: methods run in threads, and their calls on one shared event loop.

It owns the bridge from threads to the loop. `benchmarks.live` opens endpoint and environment.
"""

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from benchmarks.ground import Broken, Ground, Ledger, OutOfCalls, Pick
from lab.agent.candidate import Candidate
from lab.agent.episode import CutEpisode, Ending, Episode, FailedEpisode, Tally
from lab.environments.environment import Environment
from lab.errors import BudgetError, CallError, ConfigError, LabError
from lab.experiment.budget import FREE, Budget, Spending
from lab.experiment.experiment import Experiment
from lab.experiment.metered import Metered
from lab.llm.client import Message, Model
from lab.llm.sampling import SamplingParams
from lab.search.player import Played, Player
from lab.storage.record import Record

ASKING = SamplingParams(temperature=1.0, max_tokens=400)
"""Sampling of the proposing model. GEPA's authors use a temperature of 1.0; the maximum length is twice that
of the library's longest template."""

POLL_S = 0.5

SEEDS_PER_RUN = 10_000
HOLDOUT = 1_000_000_000
"""First environment seed of the holdout, above every run's."""

T = TypeVar("T")


@dataclass(frozen=True)
class Host:
    """The parts that all runs share.

    Attributes:
        loop: Event loop of the clients.
        proposer: The model that proposes texts.
        stopped: Set when the loop stops answering, so that no thread waits for it.
    """

    experiment: Experiment
    loop: asyncio.AbstractEventLoop
    model: Model
    proposer: Model
    environment: Environment
    stopped: threading.Event = field(default_factory=threading.Event)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the loop, from a thread, and wait for it.

        Raises:
            Broken: The comparison is being stopped.
        """
        if self.stopped.is_set():
            work.close()
            raise Broken
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        while not concurrent.futures.wait([future], timeout=POLL_S).done:
            if self.stopped.is_set():
                raise Broken
        if future.cancelled():
            raise Broken
        return future.result()

    def player(self, model: Model, spending: Spending, record: Record | None = None) -> Player:
        """A separate player for one run."""
        experiment = self.experiment
        in_flight = experiment.search.in_flight
        return Player(model, self.environment, experiment.task, in_flight, spending, record)

    async def holdout(self, candidate: Candidate, episodes: int) -> list[Episode]:
        """Play sealed episodes, on the same seeds for every pick."""
        player = self.player(self.model, Spending())
        return await _played(player, candidate, range(HOLDOUT, HOLDOUT + episodes))


class LiveGround(Ground):
    """One run of one method. Every answered call counts, including those of failed episodes."""

    can_ask = True

    def __init__(self, host: Host, seed: int, budget_calls: int) -> None:
        first = seed * SEEDS_PER_RUN
        self.experiment, self.seed, self.budget_calls = host.experiment, seed, budget_calls
        self.seeds = range(first, first + SEEDS_PER_RUN)
        self.picks = [Pick(0, host.experiment.baseline)]
        self.spending = Spending(Budget(calls=budget_calls))
        self._host, self._ledger = host, Ledger(budget_calls)
        self._model = Metered(host.model, self.spending, FREE)
        self.player = host.player(self._model, self.spending)
        self.proposer = Metered(host.proposer, self.spending, FREE)

    @property
    def calls(self) -> int:
        """Number of calls spent so far."""
        return self.spending.calls

    def play(self, candidate: Candidate, seeds: Sequence[int]) -> list[Episode]:
        """Play one episode for each seed, concurrently; see `Ground.play`.

        Raises:
            OutOfCalls: The budget does not allow all of them.
            ConfigError: See `Ground.play`.
            Broken: An episode failed for good.
        """
        promised = spent = len(seeds) * self.experiment.task.max_steps
        self._ledger.promise(promised)
        try:
            episodes = self.wait(_played(self.player, candidate, seeds))
            spent = sum(len(episode.completions) for episode in episodes)
        finally:
            self._ledger.settle(promised, spent)
        return episodes

    def sealed_player(self) -> Player:
        """A player whose calls are not counted, for the lab's own holdout: no peer has one."""
        return self._host.player(self._host.model, Spending())

    def recorded_player(self, record: Record) -> Player:
        """A player with a record, for a method that reads it."""
        return self._host.player(self._model, self.spending, record)

    def ask(self, prompt: str) -> str:
        """Call the proposing model once; see `Ground.ask`."""
        self._ledger.promise(1)
        try:
            return self.wait(self._answer(prompt))
        except BudgetError:
            raise OutOfCalls from None
        except LabError as error:
            raise Broken from error
        finally:
            self._ledger.settle(1, 1)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the shared event loop; see `Host.wait`."""
        return self._host.wait(work)

    def close(self) -> None:
        """Refuse further calls, and wait for running ones: DSPy leaves episodes behind."""
        self._ledger.close()

    async def _answer(self, prompt: str) -> str:
        try:
            return (await self.proposer.complete([Message("user", prompt)], ASKING)).text
        except CallError:
            # For example a question too long for the model: it costs its call, not the study.
            self.spending.calls += 1
            return ""


async def _played(player: Player, candidate: Candidate, seeds: Sequence[int]) -> list[Episode]:
    played = await asyncio.gather(
        *(player.episode(candidate, seed) for seed in seeds), return_exceptions=True
    )
    return [_ended(one) for one in played]


def _ended(played: Played | Ending | BaseException) -> Episode:
    match played:
        case Episode():
            return played
        case BudgetError():
            raise OutOfCalls
        case FailedEpisode(error=ConfigError() as error):
            raise error
        case FailedEpisode():
            raise Broken from played.error
        case BaseException():
            raise Broken from played
        case CutEpisode() | Tally():
            raise AssertionError("an episode was cut, or stored in a record")
