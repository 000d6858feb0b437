"""The Player: plays episodes of candidates, many at once, so that the endpoint is never idle.

It owns the limit on episodes in flight, the replay of episodes that endpoint or environment broke off, and
the tally of what was spent. Which candidate plays which seed is decided elsewhere.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass

from lab.agent import Agent
from lab.candidate import Candidate
from lab.endpoint import Endpoint
from lab.environment import Environment
from lab.episode import Episode, FailedEpisode, Step, play
from lab.errors import CallError, EnvError
from lab.evaluation import Evaluation
from lab.task import Task

ATTEMPTS = 3
"""Times that an episode is begun before it counts as failed."""


@dataclass
class Tally:
    """What was spent so far; the calls of episodes that broke off included."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    episodes: int = 0

    def count(self, step: Step) -> None:
        """Add a step's model call."""
        if step.completion is not None:
            self.calls += 1
            self.prompt_tokens += step.completion.prompt_tokens
            self.completion_tokens += step.completion.completion_tokens


class Player:
    """Plays on one endpoint and one environment, at most `in_flight` episodes at a time."""

    def __init__(self, endpoint: Endpoint, environment: Environment, task: Task, in_flight: int) -> None:
        self.task, self.tally = task, Tally()
        self._endpoint, self._environment = endpoint, environment
        self._in_flight, self._owed = in_flight, 0
        self._slots, self._room = asyncio.Semaphore(in_flight), asyncio.Event()
        self._owe(0)

    async def room(self) -> None:
        """Return when one more episode could begin at once."""
        await self._room.wait()

    def evaluate(self, candidate: Candidate, seeds: Sequence[int]) -> Coroutine[None, None, Evaluation]:
        """Play one episode of `candidate` for each of the environment's `seeds`.

        The episodes count as owed from the call on, before it is awaited, so that `room` is never too early.

        Raises:
            EndpointError: the endpoint is not to be had, for this or any episode.
            EnvError: the environment failed each time that an episode was begun.
        """
        self._owe(len(seeds))
        return self._evaluate(candidate, seeds)

    async def _evaluate(self, candidate: Candidate, seeds: Sequence[int]) -> Evaluation:
        agent = Agent(candidate, self._endpoint, self.task)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._episode(agent, seed)) for seed in seeds]
        results = [task.result() for task in tasks]
        ended = tuple(result for result in results if isinstance(result, Episode))
        failed = tuple(result for result in results if isinstance(result, FailedEpisode))
        return Evaluation(candidate, self.task, ended, failed)

    async def _episode(self, agent: Agent, seed: int) -> Episode | FailedEpisode:
        try:
            async with self._slots:
                return await self._attempts(agent, seed)
        finally:
            self._owe(-1)

    async def _attempts(self, agent: Agent, seed: int) -> Episode | FailedEpisode:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with self._environment.session() as session:
                    episode = await play(agent, session, seed, on_step=self.tally.count)
                self.tally.episodes += 1
                return episode
            except CallError as error:
                failure = FailedEpisode(seed, error)
            except EnvError:
                if attempt == ATTEMPTS:
                    raise
        return failure

    def _owe(self, change: int) -> None:
        self._owed += change
        if self._owed < self._in_flight:
            self._room.set()
        else:
            self._room.clear()
