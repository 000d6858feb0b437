"""A rollout: playing one episode of an environment with an agent.

It owns the loop over steps, which the lab and `inference.py` share. What is stored of the steps is
`lab.agent.episode`'s.
"""

import time
from collections.abc import Callable

from lab.agent.agent import Agent, Answer
from lab.agent.episode import Episode, Start
from lab.agent.own_score import OwnScore
from lab.agent.step import Step, Trouble, own_score_of
from lab.environments.action import ActionError
from lab.environments.environment import Session
from lab.environments.observation import Observed
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
        try:
            action = session.form.read(answer.action)
        except ActionError as error:
            step = _unsent(len(steps) + 1, error, seen, answer, agent.task.unread_reward, "no_action")
        else:
            acted = time.perf_counter()
            try:
                seen = await recovery.step(action.values)
                took_s = time.perf_counter() - acted
                own_score = await scorer.after(seen)
                step = _step(len(steps) + 1, action.shown, seen, answer, took_s, own_score)
            except ActionError as error:
                step = _unsent(len(steps) + 1, error, seen, answer, agent.task.unread_reward, "refused")
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
