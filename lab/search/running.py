"""A running episode: the calls that it may still make, and when it can end early.

It owns the room that the episode takes in the budget. Reacting to its steps is `lab.search.player`'s.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from math import inf, sqrt
from statistics import fmean

import numpy as np

from lab.agent.candidate import Candidate
from lab.agent.episode import Ending, Tally
from lab.agent.step import Step, Troubles, troubles_of
from lab.agent.task import Task
from lab.experiment.budget import Calls, Spending
from lab.storage.keys import EpisodeKey

Z = 1.96
"""Quantile of the normal distribution for a 95 % interval."""

Hopeless = Callable[[float], bool]
"""Whether an episode whose return is at most this number can end early."""


class Cut(Exception):  # noqa: N818  # not an error: it ends an episode early
    """Ends an episode early.

    Attributes:
        bound: Upper bound of its return, in reward.
    """

    def __init__(self, bound: float) -> None:
        self.bound = bound


class Running:
    """One episode.

    Attributes:
        candidate, seed: What plays, on which seed.
        kept: Number of its calls on record: they are not made again.

    Args:
        hopeless: Called after each step; None for an episode that is always played to its end.
        later: Play it only if the budget has room for it and the later calls that this returns; None to play
            it anyway.
        model: The model that plays it; see `lab.experiment.budget.Calls`.
        on_step: Called with each step.
    """

    def __init__(
        self,
        candidate: Candidate,
        seed: int,
        task: Task,
        hopeless: Hopeless | None,
        later: Callable[[], Calls] | None,
        model: str,
        kept: int,
        on_step: Callable[[Step], None],
    ) -> None:
        self.candidate, self.seed, self.model, self.kept = candidate, seed, model, kept
        self._task, self._hopeless, self._later, self._on_step = task, hopeless, later, on_step
        self._answers, self._steps = 0, list[Step]()

    @property
    def is_optional(self) -> bool:
        """Whether it is played only if the budget has room for all of it."""
        return self._later is not None

    @property
    def steps(self) -> int:
        """Number of steps of this attempt that were played."""
        return len(self._steps)

    @property
    def left(self) -> int:
        """Maximum calls that it may still make."""
        return self._task.max_steps - max(self._answers, self.kept)

    @property
    def troubles(self) -> Troubles:
        """Troubles of its steps so far."""
        return troubles_of(self._steps)

    def fits(self, running: Iterable["Running"], spending: Spending) -> bool:
        """Whether the budget has room for it besides the running ones."""
        return self._later is None or spending.room_for(calls_left((*running, self)), self._later())

    def begin(self) -> None:
        """Start an attempt; the calls of the one before are on record."""
        self.kept, self._answers = max(self.kept, self._answers), 0
        self._steps.clear()

    def answered(self) -> None:
        """Count a call as soon as it is spent: a step comes later."""
        self._answers += 1

    def step(self, step: Step) -> None:
        """Take in a step.

        Raises:
            Cut: The episode's return can no longer matter.
        """
        self._steps.append(step)
        self._on_step(step)
        left = self._task.max_steps - step.number
        if self._hopeless is None or step.done or not left:
            return
        bound = sum(played.reward for played in self._steps) + self._task.most_return(left)
        if self._hopeless(bound):
            raise Cut(bound)


def usual_calls(
    candidates: Iterable[Candidate], ended: Mapping[EpisodeKey, Ending], episodes: int, task: Task
) -> dict[str, float]:
    """The calls to reserve for each of a candidate's next `episodes` episodes, by its digest.

    The upper bound of the 95 % prediction interval of their mean length (Hahn and Meeker, Statistical
    Intervals, 1991), at most the task's maximum. The standard deviation is that of all candidates' episodes
    and one of the maximum length: a few short ones promise little.
    """
    lengths = defaultdict[str, list[int]](list)
    for (digest, _), one in ended.items():
        if isinstance(one, Tally):
            lengths[digest].append(len(one.rewards))
    most, usual = task.max_steps, dict[str, float]()
    deviation = float(np.std([most, *chain(*lengths.values())]))
    for digest in {one.digest for one in candidates}:
        own = lengths[digest]
        error = deviation * sqrt(1 / episodes + 1 / len(own)) if own else inf
        usual[digest] = min(fmean(own or [most]) + Z * error, most)
    return usual


def calls_left(running: Iterable[Running]) -> Calls:
    """Return the maximum calls that these episodes may still make."""
    left = Calls()
    for one in running:
        left[one.model] += one.left
    return left
