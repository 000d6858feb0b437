"""A Task: what an episode is, and how its rewards become a score.

The normalisation belongs to the task, never to a candidate: requesting fewer tokens does not shrink the
denominator. It also owns an environment's several tasks, and which of them a seed plays.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal, get_args

from lab.errors import ConfigError

_OWN_SCORE = re.compile(r"(?:observation|metadata|state|grader)(?:\.\w+)+|hooks\.score")

Scoring = Literal["sum", "last", "max"]
SCORINGS: tuple[Scoring, ...] = get_args(Scoring)

ScoreBounds = Literal["closed", "open"]
"""Where an evaluator expects a printed score: in [0, 1], or in (0, 1)."""

SCORE_BOUNDS: tuple[ScoreBounds, ...] = get_args(ScoreBounds)

Measure = Literal["return", "score"]
"""The number that an episode is judged by: the sum of its rewards, or the task's score of them."""

OTHER: dict[Measure, Measure] = {"return": "score", "score": "return"}
"""For each measure, the one that is not judged."""


@dataclass(frozen=True)
class Setup:
    """One of several tasks that an environment is reset to.

    Attributes:
        reset: Additional arguments of `reset`.
    """

    name: str
    reset: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """The rules that apply to every candidate.

    Attributes:
        name: The `task=` of the START line.
        benchmark: The `env=` of the START line.
        max_steps: Maximum steps of an episode.
        max_tokens: Maximum tokens of an answer, whatever the candidate requests.
        max_return: Aggregated reward that maps to a score of 1.0.
        success_score: Minimum score of a successful episode.
        max_step_reward: Maximum reward of one step; infinite if unknown.
        min_return: Aggregated reward that maps to a score of 0.0.
        min_step_reward: Minimum reward of one step; infinite if unknown.
        score: What becomes the score: the rewards' sum, the last, or the highest; or the environment's own
            number, after the last step that has one: `observation.FIELD`, `metadata.FIELD`, `state.FIELD`,
            `grader.FIELD`, or `hooks.score`, the result of the project's hook.
        tasks: Several tasks, played round-robin; empty for a single one.
        score_bounds: Bounds of the scores that a submission prints; the lab's own are never moved.
    """

    name: str
    benchmark: str
    max_steps: int
    max_tokens: int
    max_return: float
    success_score: float
    max_step_reward: float = inf
    min_return: float = 0.0
    min_step_reward: float = -inf
    score: str = "sum"
    tasks: tuple[Setup, ...] = ()
    score_bounds: ScoreBounds = "closed"

    def __post_init__(self) -> None:
        if self.score not in SCORINGS and not _OWN_SCORE.fullmatch(self.score):
            places = ", ".join(f"{one}.FIELD" for one in ("observation", "metadata", "state", "grader"))
            do = f"use {', '.join(SCORINGS)}, {places} or hooks.score"
            raise ConfigError(f"score is {self.score!r}.", where="task.score", do=do)
        if self.score_bounds not in SCORE_BOUNDS:
            what, do = f"score_bounds is {self.score_bounds!r}.", f"use {' or '.join(SCORE_BOUNDS)}"
            raise ConfigError(what, where="task.score_bounds", do=do)
        if not self.min_return < self.max_return:
            what = f"min_return {self.min_return:g} is not below max_return {self.max_return:g}."
            do = "set min_return, the return that scores 0, below max_return, which scores 1"
            raise ConfigError(what, where="task.min_return", do=do)
        if not self.min_step_reward <= self.max_step_reward:
            low, high = self.min_step_reward, self.max_step_reward
            what = f"min_step_reward {low:g} is above max_step_reward {high:g}."
            do = "set min_step_reward to max_step_reward at most"
            raise ConfigError(what, where="task.min_step_reward", do=do)

    @property
    def own_score(self) -> str:
        """Where the environment's own score is; empty if rewards are aggregated."""
        return "" if self.score in SCORINGS else self.score

    def score_of(self, rewards: Iterable[float], own: float | None = None) -> float:
        """The aggregated rewards, scaled from [min_return, max_return] to [0, 1] and clamped.

        Args:
            own: The environment's own number, which is scaled in place of the rewards if the task takes it;
                without one, the score is 0.
        """
        listed = list(rewards)
        match self.score:
            case "sum":
                together = sum(listed)
            case "last":
                together = listed[-1] if listed else self.min_return
            case "max":
                together = max(listed, default=self.min_return)
            case _:
                together = self.min_return if own is None else own
        share = (together - self.min_return) / (self.max_return - self.min_return)
        return min(max(share, 0.0), 1.0)

    def value_of(self, rewards: Iterable[float], measure: Measure, own: float | None = None) -> float:
        """The value of an episode with these rewards: its return, in reward, or its score, in [0, 1].

        Args:
            own: See `score_of`.
        """
        return sum(rewards) if measure == "return" else self.score_of(rewards, own)

    def bounds(self, measure: Measure) -> bool:
        """Whether an episode's rewards so far bound the value that it can still reach.

        They do not for the last or the highest reward, which may still come.
        """
        return self.max_step_reward < inf and (measure == "return" or self.score == "sum")

    def most_value(self, most_return: float, measure: Measure) -> float:
        """The highest value of an episode whose return is at most `most_return`."""
        if measure == "return":
            return most_return
        if self.own_score:
            return 1.0
        return self.score_of([most_return if self.score == "sum" else max(self.max_step_reward, 0.0)])

    def described(self, measure: Measure) -> str:
        """A description of a measure in this task."""
        if measure == "return":
            return f"the sum of the rewards of up to {self.max_steps} steps"
        together = {"sum": "the sum of the rewards", "last": "the last reward", "max": "the highest reward"}
        rewards = f"{together.get(self.score)} of up to {self.max_steps} steps"
        told = f"the environment's {self.score}" if self.own_score else rewards
        ends = f"{self.min_return:g} gives 0 and {self.max_return:g} gives 1"
        return f"from {told}: {ends}"

    @property
    def unread_reward(self) -> float:
        """Reward of a step whose answer was not an action: 0, or the minimum step reward if that is below 0.

        Otherwise nonsense would pay more than playing in an environment where steps cost reward.
        """
        return min(self.min_step_reward, 0.0) if self.min_step_reward > -inf else 0.0

    def most_return(self, steps: int) -> float:
        """Maximum return of this many more steps; the episode may end before."""
        return steps * max(self.max_step_reward, 0.0) if steps else 0.0

    def setup(self, seed: int) -> tuple[Setup, int]:
        """The task that a seed of the study plays, and the seed of its reset.

        Consecutive seeds play the tasks round-robin, so that as many seeds as tasks play each once.
        """
        if not self.tasks:
            return Setup(self.name), seed
        return self.tasks[seed % len(self.tasks)], seed // len(self.tasks)

    @property
    def names(self) -> list[str]:
        """The names of its tasks; the seed at a name's index plays that task with reset seed 0."""
        return [setup.name for setup in self.tasks] or [self.name]
