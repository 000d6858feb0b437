"""A rollout: playing one episode of an environment with an agent.

It owns the loop over steps, which the lab and `inference.py` share, and where the environment's own score is
looked for. What is stored of the steps is `lab.agent.episode`'s.
"""

import time
from collections.abc import Callable
from typing import Any

from lab.agent.agent import Agent, Answer
from lab.agent.episode import Episode, Start
from lab.agent.step import Step, Trouble, own_score_of
from lab.environments.action import ActionError
from lab.environments.environment import Session
from lab.environments.foreign import raised
from lab.environments.observation import Observed, finite, nested
from lab.environments.recovery import Recovery
from lab.errors import CallError, ConfigError, EndpointError, EnvError

OnStep = Callable[[Step], None]
"""Called with each step as soon as it is played."""


async def play(
    agent: Agent, session: Session, seed: int, *, on_step: OnStep | None = None, fall_back: bool = False
) -> Episode:
    """Play one episode. An action that the environment refuses, or that makes it raise, costs one step.

    Args:
        fall_back: Whether to continue with the agent's fallback action after a failed model call, because
            a submission has only one try. If the endpoint never answered, the error is raised anyway.

    Raises:
        CallError: A model call failed.
        EndpointError: The endpoint is unavailable.
        EnvError: The environment failed; BrokenError: at an action, or right after it.
        ConfigError: A hook failed, or there is no score where the task names one.
    """
    setup, reset_seed = agent.task.setup(seed)
    began = time.time()
    scorer = OwnScore(session, agent.task.own_score)
    recovery = Recovery(session, reset_seed, setup.reset)
    seen = await recovery.reset()
    if seen.done:
        raise EnvError("The episode was over at reset: there is nothing to play.", why=f"seed {seed}")
    start, steps = Start(seen.text, seen.fields, session.form.asked), list[Step]()
    while not seen.done and len(steps) < agent.task.max_steps and await recovery.can_continue():
        try:
            answer = await agent.act(start, steps)
        except (CallError, EndpointError) as error:
            never_answered = not any(step.completion for step in steps)
            if not fall_back or (isinstance(error, EndpointError) and never_answered):
                raise
            answer = agent.fallback(error.one_line)
        trouble: Trouble = "no_action"
        try:
            action = session.form.read(answer.action)
            trouble, acted = "refused", time.perf_counter()
            seen = await recovery.step(action.values)
            took_s = time.perf_counter() - acted
            own_score = await scorer.after(seen)
            step = _step(len(steps) + 1, action.shown, seen, answer, took_s, own_score)
        except ActionError as error:
            step = _unsent(len(steps) + 1, error, seen, answer, agent.task.unread_reward, trouble)
        steps.append(step)
        if on_step is not None:
            on_step(step)
    if seen.done and agent.task.own_score and own_score_of(steps) is None:
        what, do = "The environment ended the episode without a score.", "name a field that is a number then"
        raise ConfigError(what, where=f"task.score = {agent.task.own_score!r}", do=do)
    return Episode(seed, start.text, tuple(steps), start.fields, start.schema, began)


def _step(
    number: int, action: str, seen: Observed, answer: Answer, environment_s: float, own_score: float | None
) -> Step:
    outcome = (seen.text, seen.reward, seen.done)
    told = (answer.error, answer.completion, seen.fields)
    return Step(number, action, *outcome, *told, environment_s, answer.trouble, seen.error, own_score)


def _unsent(
    number: int, error: ActionError, seen: Observed, answer: Answer, reward: float, trouble: Trouble
) -> Step:
    """A step without effect in the environment: the last observation is shown again, with the reason."""
    shown = f"{error.what}: {error.why}\n\n{seen.text}"
    why = answer.error or error.one_line
    trouble = answer.trouble or trouble
    return Step(
        number, answer.action, shown, reward, False, why, answer.completion, seen.fields, trouble=trouble
    )


class OwnScore:
    """Looks for the score after each step.

    Args:
        where: See `Task.own_score`; empty if the task does not take it.

    Raises:
        ConfigError: The hooks define no score.
    """

    def __init__(self, session: Session, where: str) -> None:
        self._session, self._where = session, where
        self._observations, self._rewards = list[dict[str, Any]](), list[float]()
        if where == "hooks.score" and session.view.score is None:
            do = "define score(observations, rewards) there"
            raise ConfigError("The hooks define no score.", where="environment.hooks", do=do)

    async def after(self, seen: Observed) -> float | None:
        """The score after a step; None if there is no number yet.

        Raises:
            EnvError: The environment cannot tell its state, or has no grader.
            ConfigError: The project's `score` failed.
        """
        source, _, path = self._where.partition(".")
        match source:
            case "observation":
                return finite(nested(seen.raw, path))
            case "metadata":
                return finite(nested(seen.raw, self._where))
            case "state":
                return finite(nested(await self._session.state(), path))
            case "grader":
                return finite(nested(await self._session.grade(), path))
            case "hooks":
                self._observations.append(dict(seen.raw))
                self._rewards.append(seen.reward)
                return self._hooked()
        return None

    def _hooked(self) -> float | None:
        score = self._session.view.score
        assert score is not None
        try:
            given = score(list(self._observations), list(self._rewards))
        except BaseException as error:  # of the project's own code, which may call sys.exit
            what, where = "The score hook failed.", "environment.hooks"
            raise ConfigError(what, where=where, why=raised(error)) from error
        if given is not None and finite(given) is None:
            what, why = "The score hook did not return a finite number.", f"it returned {given!r}"
            raise ConfigError(what, where="environment.hooks", why=why)
        return finite(given)
