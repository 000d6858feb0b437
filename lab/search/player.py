"""The Player: plays episodes of candidates, many concurrently, so that the endpoint is never idle.

It owns the limit on concurrent episodes, retries of episodes that failed in endpoint or environment, whether
the candidate is to blame, and that an ended episode is not played again. The race decides which candidate
plays which seed.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping

from lab.agent.agent import Agent
from lab.agent.candidate import Candidate
from lab.agent.episode import CutEpisode, Ending, Episode, FailedEpisode
from lab.agent.rollout import play
from lab.agent.step import Step
from lab.agent.task import Task
from lab.environments.environment import Environment
from lab.errors import BrokenError, BudgetError, CallError, EnvError, RequestError
from lab.experiment.budget import BASELINES, Calls, Spending
from lab.experiment.metered import out_of_budget
from lab.llm.client import Model
from lab.search.blame import Blame
from lab.search.first_answers import FirstAnswers
from lab.search.running import Cut, Hopeless, Running
from lab.storage.call_cache import Recorded
from lab.storage.keys import EpisodeKey, scope_of
from lab.storage.record import Record

ATTEMPTS = 3
"""Attempts at an episode before its environment counts as failed, or its candidate as unplayable."""

WAIT_S = 2.0
"""Seconds before a retry, times the attempts so far: a server may be restarting."""

LARGE = 100_000
"""Characters above which an observation gets a warning: it is stored whole, with every episode."""

Played = Episode | CutEpisode | FailedEpisode


class Player:
    """Plays on one model and one environment, at most `in_flight` episodes at a time.

    Attributes:
        stopped_by: The budget limit for which a phase left out an episode; None if none was left out.

    Args:
        record: Where calls and episodes are stored and looked up; None to play without.
        baseline: The candidate whose failure ends the study, because all others are compared with it.
        say: Called with a sentence for people when a candidate has failed because it breaks the environment,
            and once for an observation larger than `LARGE`.
        first: Called with each step; it may stop the study.
        others: Models of candidates that do not play on `model`, by their names in candidates.
    """

    def __init__(
        self,
        model: Model,
        environment: Environment,
        task: Task,
        in_flight: int,
        spending: Spending,
        record: Record | None = None,
        baseline: Candidate | None = None,
        say: Callable[[str], None] = lambda _: None,
        first: FirstAnswers | None = None,
        others: Mapping[str, Model] | None = None,
    ) -> None:
        self.task, self.spending, self.first = task, spending, first
        self.stopped_by: BudgetError | None = None
        self._model, self._others, self._environment = model, others or {}, environment
        self._record, self._baseline, self._say = record, baseline, say
        self._blame = Blame(environment, task, record)
        self._said_large, self._ended = False, asyncio.Event()
        self._in_flight, self._requested, self._running = in_flight, set[Running](), set[Running]()
        self._kept = record.unused_calls() if record else Counter[EpisodeKey]()
        self._slots, self._room = asyncio.Semaphore(in_flight), asyncio.Event()
        self._room.set()

    @property
    def playing(self) -> list[Running]:
        """The episodes of the record that this process is playing."""
        return list(self._running)

    @property
    def requested(self) -> list[Running]:
        """The episodes that were requested and have not ended."""
        return list(self._requested)

    def most_calls(self, candidate: Candidate, seed: int) -> int:
        """Maximum calls that an episode which is not on record may still make."""
        for one in self._requested:
            if one.seed == seed and one.candidate.digest == candidate.digest:
                return one.left
        return max(self.task.max_steps - self._kept[candidate.digest, seed], 0)

    def has_begun(self, digest: str, seed: int) -> bool:
        """Whether an earlier process made calls of an episode and did not finish it."""
        return (digest, seed) in self._kept

    def look_again(self) -> None:
        """Count again the calls of unfinished episodes, after another process has left some."""
        if self._record is not None:
            self._kept = self._record.unused_calls()

    async def room(self) -> None:
        """Wait until one more episode can start at once."""
        await self._room.wait()

    def episode(
        self,
        candidate: Candidate,
        seed: int,
        hopeless: Hopeless | None = None,
        *,
        later: Callable[[], Calls] | None = None,
    ) -> Coroutine[None, None, Played | Ending]:
        """Play one episode.

        Its model calls are due from this call on, not from the await, so that `room` never returns too early.

        Args:
            hopeless: Called after each step if the task bounds a step's reward.
            later: Start it only if the budget has room for all of its steps and the later calls that this
                returns; None to start it anyway.

        Returns:
            The episode, or with a record its ending, because the record keeps the texts.

        Raises:
            EndpointError: The endpoint is unavailable.
            EnvError: The environment failed in every attempt, and this candidate is not to blame.
            BudgetError: The budget is used up.
        """

        def on_step(step: Step) -> None:
            self._blame.look_at(candidate.digest, seed, step)
            if self.first is not None:
                self.first.step(candidate.digest, step)

        kept = self._kept[candidate.digest, seed]
        running = Running(
            candidate, seed, self.task, hopeless, later, self.model_of(candidate), kept, on_step
        )
        self._requested.add(running)
        self._look_at_room()
        return self._episode(running)

    def model_of(self, candidate: Candidate) -> str:
        """The model that plays a candidate; see `lab.experiment.budget.Calls`."""
        return candidate.model if candidate.model in self._others else BASELINES

    async def _episode(self, running: Running) -> Played | Ending:
        try:
            if self._record is None:
                async with self._slots:
                    return await self._attempts(running)
            return await self._once(self._record, running)
        finally:
            self._requested.discard(running)
            self._look_at_room()

    async def _once(self, record: Record, running: Running) -> Ending:
        """Play an episode unless it is on record."""
        key = (running.candidate.digest, running.seed)
        if key in record.ended:
            return record.ended[key]
        async with self._slots:
            await self._room_in_budget(running, record, key)
            self._running.add(running)
            try:
                return record.keep_episode(key[0], await self._attempts(running))
            finally:
                self._running.discard(running)
                self._ended.set()
                self._ended = asyncio.Event()

    async def _room_in_budget(self, running: Running, record: Record, key: EpisodeKey) -> None:
        """Wait until an optional episode fits into the budget besides the running ones.

        A running episode may end early: so nothing is refused before the others have ended.

        Raises:
            BudgetError: It does not fit although no other episode is running.
        """
        if running.is_optional:  # another worker may have played some of it
            running.kept = len(record.calls_of(scope_of(*key)))
            self.spending.recount()
        while not running.fits(self._running, self.spending):
            if not self._running:
                raise out_of_budget(self.spending.nearest_limit)
            await self._ended.wait()

    async def _attempts(self, running: Running) -> Played:
        candidate, seed, broken = running.candidate, running.seed, 0
        for attempt in range(1, ATTEMPTS + 1):
            agent = Agent(candidate, self._model_for(running), self.task)
            try:
                async with self._environment.session() as session:
                    running.begin()
                    episode = await play(agent, session, seed, on_step=running.step)
                self.spending.episodes += 1
                self._look_at(episode)
                return episode
            except Cut as cut:
                return CutEpisode(seed, cut.bound, running.troubles)
            except RequestError as error:
                may_pass = candidate == self._baseline and self.spending.calls > 0
                if attempt == ATTEMPTS or not may_pass:
                    return FailedEpisode(seed, error)
            except CallError as error:  # its own retries are used up, while other calls were answered
                if attempt == ATTEMPTS:
                    return FailedEpisode(seed, error)
                await asyncio.sleep(WAIT_S * attempt)
            except EnvError as error:
                broken += isinstance(error, BrokenError)
                if attempt == ATTEMPTS:
                    is_baseline = candidate == self._baseline
                    if broken < ATTEMPTS or is_baseline or not await self._blame.is_on(candidate):
                        raise
                    alone = "If several do, its episodes may disturb each other: set search.in_flight = 1."
                    self._say(f"A candidate has failed: it breaks the environment. {alone} {error.one_line}")
                    return FailedEpisode(seed, error)
                await asyncio.sleep(WAIT_S * attempt)
        raise AssertionError("the last attempt returns or raises")

    def _model_for(self, one: Running) -> Model:
        model = self._others.get(one.model, self._model)
        if self._record is None:
            return model
        scope = scope_of(one.candidate.digest, one.seed)
        return Recorded(model, self._record, scope, one.model, one.answered)

    def _look_at(self, episode: Episode) -> None:
        largest = max(map(len, (episode.opening, *(step.observation for step in episode.steps))))
        if largest > LARGE and not self._said_large:
            self._said_large = True
            size = f"An observation has {largest:,} characters, and each is stored whole."
            self._say(f"{size} To cut it, set longest under [environment] in the experiment file.")

    def _look_at_room(self) -> None:
        if len(self._requested) < self._in_flight:
            self._room.set()
        else:
            self._room.clear()
