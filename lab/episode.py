"""An Episode: one play of an environment from reset to done or the step limit.

It owns the loop over steps and what is kept of them. The lab and `inference.py` play through this loop.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.endpoint import Completion
from lab.errors import CallError, EndpointError, EnvError, LabError

if TYPE_CHECKING:
    from lab.agent import Agent
    from lab.environment import Session


@dataclass(frozen=True)
class Step:
    """One action and what came of it.

    Attributes:
        number: counts from 1.
        observation: the environment's text after the action.
        error: why the action is not the model's own, or None.
        completion: the model call behind the action; None where it failed.
        environment_s: seconds that the environment took for it; None where that was not kept.
    """

    number: int
    action: str
    observation: str
    reward: float
    done: bool
    error: str | None = None
    completion: Completion | None = None
    environment_s: float | None = None


@dataclass(frozen=True)
class Episode:
    """An episode that was played to its end.

    Attributes:
        seed: the environment's seed.
        opening: the text that `reset` showed.
        began: when its play began, in seconds since 1970; None where that was not kept.
    """

    seed: int
    opening: str
    steps: tuple[Step, ...]
    began: float | None = None

    @property
    def episode_return(self) -> float:
        """The sum of the rewards."""
        return sum(step.reward for step in self.steps)

    @property
    def duration_s(self) -> float:
        """Seconds that its model calls and the environment took, as far as they were kept."""
        calls = sum(completion.latency_s for completion in self.completions)
        return calls + sum(step.environment_s or 0.0 for step in self.steps)

    @property
    def completions(self) -> tuple[Completion, ...]:
        """The model's answers, in order."""
        return tuple(step.completion for step in self.steps if step.completion is not None)

    @property
    def prompt_tokens(self) -> int:
        """Tokens sent, all calls together."""
        return sum(completion.prompt_tokens for completion in self.completions)

    @property
    def completion_tokens(self) -> int:
        """Tokens that the model wrote."""
        return sum(completion.completion_tokens for completion in self.completions)


@dataclass(frozen=True)
class FailedEpisode:
    """An episode that endpoint or environment broke off: it has no return, and is no zero."""

    seed: int
    error: LabError


@dataclass(frozen=True)
class CutEpisode:
    """An episode that was ended in the middle, because its return could not matter any more.

    Attributes:
        bound: the most that it could have returned, in reward.
    """

    seed: int
    bound: float


OnStep = Callable[[Step], None]
"""Told of each step as soon as the environment has taken it."""


async def play(
    agent: "Agent", session: "Session", seed: int, *, on_step: OnStep | None = None, fall_back: bool = False
) -> Episode:
    """Play one episode.

    Args:
        fall_back: go on with the agent's fallback action where a model call fails (a submission has one
            try), instead of raising. An endpoint that never answered is raised all the same.

    Raises:
        CallError: a model call failed.
        EndpointError: the endpoint is not to be had.
        EnvError: the environment failed.
    """
    began = time.time()
    seen = await session.reset(seed)
    if seen.done:
        raise EnvError("The environment was over at reset: there is nothing to play.", why=f"seed {seed}")
    opening, steps = seen.text, list[Step]()
    while not seen.done and len(steps) < agent.task.max_steps:
        try:
            answer = await agent.act(opening, steps)
        except (CallError, EndpointError) as error:
            never_answered = not any(step.completion for step in steps)
            if not fall_back or (isinstance(error, EndpointError) and never_answered):
                raise
            answer = agent.fallback(error.one_line)
        acted = time.perf_counter()
        seen = await session.step(answer.action)
        step = Step(
            number=len(steps) + 1,
            action=answer.action,
            observation=seen.text,
            reward=seen.reward,
            done=seen.done,
            error=answer.error,
            completion=answer.completion,
            environment_s=time.perf_counter() - acted,
        )
        steps.append(step)
        if on_step is not None:
            on_step(step)
    return Episode(seed, opening, tuple(steps), began)
