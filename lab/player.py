"""The Player: plays episodes of candidates, many at once, so that the endpoint is never idle.

It owns the limit on episodes in flight, the second try of an episode that endpoint or environment broke off,
and that an episode which has ended, or which another worker plays, is not played again. Which candidate plays
which seed is decided elsewhere.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence

from lab.agent import Agent
from lab.candidate import Candidate
from lab.endpoint import Model
from lab.environment import Environment
from lab.episode import CutEpisode, Ending, Episode, FailedEpisode, Step, Tally, play
from lab.errors import CallError, EnvError, RequestError
from lab.evaluation import Evaluation
from lab.journal import Ended, Failed
from lab.record import Record
from lab.recorded import Recorded
from lab.spending import Spending
from lab.task import Task

ATTEMPTS = 3
"""Times that an episode is begun before its environment counts as failed, or its candidate as unplayable."""

WAIT_S = 2.0
"""Before an episode is begun again, times the attempts so far: a server may be on its way up again."""

LARGE = 100_000
"""Characters from which an observation is worth a warning: it is recorded whole, with every episode."""

Played = Episode | CutEpisode | FailedEpisode
Hopeless = Callable[[float], bool]
"""Whether an episode that can return so much at most need not be played on."""


class Player:
    """Plays on one model and one environment, at most `in_flight` episodes at a time.

    Args:
        record: where calls and episodes are kept, and looked up; None to play without.

    Attributes:
        on_large: called once, with the characters of the first observation that is larger than `LARGE`.
    """

    def __init__(
        self,
        model: Model,
        environment: Environment,
        task: Task,
        in_flight: int,
        spending: Spending,
        record: Record | None = None,
    ) -> None:
        self.task, self.spending = task, spending
        self.owed_calls = 0
        self._model, self._environment = model, environment
        self._record = record
        self.on_large: Callable[[int], None] | None = None
        self._in_flight, self._owed = in_flight, 0
        self._slots, self._room = asyncio.Semaphore(in_flight), asyncio.Event()
        self._owe(0)

    async def room(self) -> None:
        """Return when one more episode could begin at once."""
        await self._room.wait()

    def episode(
        self, candidate: Candidate, seed: int, hopeless: Hopeless | None = None
    ) -> Coroutine[None, None, Played | Ending]:
        """Play one episode; `hopeless` is asked after each step where the task bounds a step's reward.

        Returns:
            The episode; what comes of it in the record where there is one, which keeps the texts.

        It counts as owed from the call on, before it is awaited, so that `room` is never too early.

        Raises:
            EndpointError: the endpoint is not to be had, for this or any episode.
            EnvError: the environment failed each time that the episode was begun.
            BudgetError: the budget is used up.
        """
        self._owe(1)
        return self._episode(candidate, seed, hopeless)

    async def evaluate(self, candidate: Candidate, seeds: Sequence[int]) -> Evaluation:
        """Play one episode of `candidate` for each of the environment's `seeds`, whole.

        Raises:
            LabError: as `episode` does.
        """
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.episode(candidate, seed)) for seed in seeds]
        results = [task.result() for task in tasks]
        ended = tuple(result for result in results if isinstance(result, Episode | Tally))
        failed = tuple(result for result in results if isinstance(result, FailedEpisode))
        return Evaluation(candidate, self.task, ended, failed)

    async def _episode(self, candidate: Candidate, seed: int, hopeless: Hopeless | None) -> Played | Ending:
        running = _Running(self, hopeless)
        try:
            if self._record is None:
                async with self._slots:
                    return await self._attempts(candidate, seed, running)
            return await self._once(self._record, candidate, seed, running)
        finally:
            self.owed_calls += running.calls
            self._owe(-1)

    async def _once(self, record: Record, candidate: Candidate, seed: int, running: "_Running") -> Ending:
        """Play it, unless another worker has, or does: then wait for how it ends."""
        which = (candidate.digest, seed)
        while which not in record.ended:
            async with self._slots:
                if record.claim(which):
                    return self._keep(record, candidate, await self._attempts(candidate, seed, running))
            if which not in record.ended:
                await record.changed()
        return record.ended[which]

    async def _attempts(self, candidate: Candidate, seed: int, running: "_Running") -> Played:
        for attempt in range(1, ATTEMPTS + 1):
            agent = Agent(candidate, self._model_for(candidate, seed), self.task)
            try:
                async with self._environment.session() as session:
                    running.begin()
                    episode = await play(agent, session, seed, on_step=running.step)
                self.spending.episodes += 1
                self._look_at(episode)
                return episode
            except _Cut as cut:
                return CutEpisode(seed, cut.bound)
            except RequestError as error:
                return FailedEpisode(seed, error)
            except CallError as error:  # tried as often as patience has it, while others were answered
                if attempt == ATTEMPTS:
                    return FailedEpisode(seed, error)
                await asyncio.sleep(WAIT_S * attempt)
            except EnvError:
                if attempt == ATTEMPTS:
                    raise
                await asyncio.sleep(WAIT_S * attempt)
        raise AssertionError("the last attempt returns or raises")

    def _model_for(self, candidate: Candidate, seed: int) -> Model:
        if self._record is None:
            return self._model
        return Recorded(self._model, self._record, f"{candidate.digest} {seed}")

    def _look_at(self, episode: Episode) -> None:
        texts = (episode.opening, *(step.observation for step in episode.steps))
        if self.on_large is not None and (largest := max(map(len, texts))) > LARGE:
            self.on_large(largest)
            self.on_large = None

    @staticmethod
    def _keep(record: Record, candidate: Candidate, played: Played) -> Ending:
        if isinstance(played, FailedEpisode):
            error = played.error
            texts = (error.what, error.where, error.why, error.do)
            record.append(Failed(candidate.digest, played.seed, *texts))
        else:
            record.append(Ended(candidate.digest, played))
        return record.ended[candidate.digest, played.seed]

    def _owe(self, change: int) -> None:
        self._owed += change
        self.owed_calls += change * self.task.max_steps
        if self._owed < self._in_flight:
            self._room.set()
        else:
            self._room.clear()


class _Cut(Exception):  # noqa: N818  # not an error: the way out of an episode that need not go on
    def __init__(self, bound: float) -> None:
        self.bound = bound


class _Running:
    """One episode that is being played: the calls it has made, and the most that it can still return."""

    def __init__(self, player: Player, hopeless: Hopeless | None) -> None:
        self.calls = 0
        self._player, self._hopeless = player, hopeless
        self._returned = 0.0

    def begin(self) -> None:
        self._returned = 0.0

    def step(self, step: Step) -> None:
        self.calls += 1
        self._player.owed_calls -= 1
        self._returned += step.reward
        left = self._player.task.max_steps - step.number
        if self._hopeless is None or step.done or not left:
            return
        bound = self._returned + self._player.task.most_return(left)
        if self._hopeless(bound):
            raise _Cut(bound)
