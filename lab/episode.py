"""An Episode: one play of an environment from reset to done or the step limit.

It owns the loop over steps and what is kept of them. The lab and `inference.py` play through this loop.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from lab.action import ActionError
from lab.endpoint import Completion
from lab.errors import CallError, EndpointError, EnvError, LabError
from lab.observation import Fields, Observed
from lab.recovery import Recovery
from lab.troubles import Times, Troubles, troubles_of

if TYPE_CHECKING:
    from lab.agent import Agent, Answer
    from lab.environment import Session


Trouble = Literal["empty", "no_action", "refused", "no_answer"]
"""Why a step's action is not one that the model chose and the environment took: the model's answer was empty;
it could not be read as an action; the environment refused the action; the model call failed."""


@dataclass(frozen=True)
class Step:
    """One action and what came of it.

    Attributes:
        number: counts from 1.
        observation: the environment's text after the action.
        error: why the action is not the model's own, or is none of the environment's; or None.
        completion: the model call behind the action; None where it failed.
        fields: of the observation.
        environment_s: seconds that the environment took for it; None where that was not kept.
        trouble: the kind of `error`; None where the action is the model's own and the environment took it.
    """

    number: int
    action: str
    observation: str
    reward: float
    done: bool
    error: str | None = None
    completion: Completion | None = None
    fields: Fields = field(default_factory=dict)
    environment_s: float | None = None
    trouble: Trouble | None = None


@dataclass(frozen=True)
class Start:
    """What an episode begins with.

    Attributes:
        text, fields: the observation that `reset` showed.
        schema: the JSON Schema that actions are asked for in; empty where they are plain text.
    """

    text: str
    fields: Fields = field(default_factory=dict)
    schema: str = ""


@dataclass(frozen=True, slots=True)
class Tally:
    """What is counted of an episode that was played to its end: all but its texts.

    Attributes:
        rewards: of each step.
        calls: of the model, that were answered.
        calls_s: seconds of them, all together.
        duration_s: see `Episode`.
        began: see `Episode`.
        times: the troubles of its steps.
    """

    seed: int
    rewards: tuple[float, ...]
    calls: int
    prompt_tokens: int
    completion_tokens: int
    calls_s: float
    duration_s: float
    began: float | None
    times: Times = ()

    @property
    def episode_return(self) -> float:
        """The sum of the rewards."""
        return sum(self.rewards)

    @property
    def troubles(self) -> Troubles:
        """The troubles of its steps."""
        return Troubles(len(self.rewards), self.times)


@dataclass(frozen=True)
class Episode:
    """An episode that was played to its end.

    Attributes:
        seed: the study's; the task's `setup` says what it plays.
        opening: the text that `reset` showed.
        fields, schema: see `Start`.
        began: when its play began, in seconds since 1970; None where that was not kept.
    """

    seed: int
    opening: str
    steps: tuple[Step, ...]
    fields: Fields = field(default_factory=dict)
    schema: str = ""
    began: float | None = None

    @property
    def start(self) -> Start:
        """What it began with."""
        return Start(self.opening, self.fields, self.schema)

    @property
    def rewards(self) -> tuple[float, ...]:
        """Of each step."""
        return tuple(step.reward for step in self.steps)

    @property
    def episode_return(self) -> float:
        """The sum of the rewards."""
        return sum(self.rewards)

    @property
    def calls_s(self) -> float:
        """Seconds of its model calls, all together."""
        return sum(completion.latency_s for completion in self.completions)

    @property
    def duration_s(self) -> float:
        """Seconds that its model calls and the environment took, as far as they were kept."""
        return self.calls_s + sum(step.environment_s or 0.0 for step in self.steps)

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

    @property
    def calls(self) -> int:
        """Of the model, that were answered."""
        return len(self.completions)

    @property
    def troubles(self) -> Troubles:
        """The troubles of its steps."""
        return troubles_of(self.steps)

    @property
    def tally(self) -> Tally:
        """It without its texts, which are most of it."""
        return Tally(
            self.seed,
            self.rewards,
            self.calls,
            self.prompt_tokens,
            self.completion_tokens,
            self.calls_s,
            self.duration_s,
            self.began,
            self.troubles.times,
        )


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
        troubles: of the steps that were played.
    """

    seed: int
    bound: float
    troubles: Troubles = field(default_factory=Troubles)


Ending = Tally | CutEpisode | FailedEpisode
"""How an episode ended, without its texts."""

OnStep = Callable[[Step], None]
"""Told of each step as soon as the environment has taken it."""


async def play(
    agent: "Agent", session: "Session", seed: int, *, on_step: OnStep | None = None, fall_back: bool = False
) -> Episode:
    """Play one episode. An action that the environment refuses, or raises at, costs its step.

    Args:
        fall_back: go on with the agent's fallback action where a model call fails (a submission has one
            try), instead of raising. An endpoint that never answered is raised all the same.

    Raises:
        CallError: a model call failed.
        EndpointError: the endpoint is not to be had.
        EnvError: the environment failed; BrokenError: at an action, or right after it.
    """
    setup, reset_seed = agent.task.setup(seed)
    began = time.time()
    recovery = Recovery(session, reset_seed, setup.reset)
    seen = await recovery.reset()
    if seen.done:
        raise EnvError("The environment was over at reset: there is nothing to play.", why=f"seed {seed}")
    start, steps = Start(seen.text, seen.fields, session.form.asked), list[Step]()
    while not seen.done and len(steps) < agent.task.max_steps and await recovery.goes_on():
        try:
            answer = await agent.act(start, steps)
        except (CallError, EndpointError) as error:
            never_answered = not any(step.completion for step in steps)
            if not fall_back or (isinstance(error, EndpointError) and never_answered):
                raise
            answer = agent.fallback(error.one_line)
        try:
            action = session.form.read(answer.action)
        except ActionError as error:
            step = _unsent(len(steps) + 1, error, seen, answer, agent.task.unread_reward, "no_action")
        else:
            acted = time.perf_counter()
            try:
                seen = await recovery.step(action.values)
                step = _step(len(steps) + 1, action.shown, seen, answer, time.perf_counter() - acted)
            except ActionError as error:
                step = _unsent(len(steps) + 1, error, seen, answer, agent.task.unread_reward, "refused")
        steps.append(step)
        if on_step is not None:
            on_step(step)
    return Episode(seed, start.text, tuple(steps), start.fields, start.schema, began)


def _step(number: int, action: str, seen: Observed, answer: "Answer", environment_s: float) -> Step:
    outcome = (seen.text, seen.reward, seen.done)
    return Step(
        number, action, *outcome, answer.error, answer.completion, seen.fields, environment_s, answer.trouble
    )


def _unsent(
    number: int, error: ActionError, seen: Observed, answer: "Answer", reward: float, trouble: Trouble
) -> Step:
    """A step in which nothing happened in the environment: what was last seen is shown again with why."""
    told = f"{error.what}: {error.why}\n\n{seen.text}"
    why = answer.error or error.one_line
    trouble = answer.trouble or trouble
    return Step(
        number, answer.action, told, reward, False, why, answer.completion, seen.fields, trouble=trouble
    )
