"""A Rehearsal: the first two steps of an episode, played with the baseline's prompt as in a study.

It owns playing and describing them; the doctor reports the result.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from lab.agent.agent import Agent
from lab.agent.rollout import play
from lab.agent.step import Step
from lab.agent.troubles import troubles_of
from lab.environments.config import choose_environment
from lab.environments.environment import Session
from lab.experiment.experiment import Experiment
from lab.llm.launch import open_endpoint, opening_model
from lab.llm.settings import ModelChoice, choose_model
from lab.search.first_answers import unusable
from lab.search.trouble_words import TROUBLES
from lab.stats.format import number

STEPS = 2

LONGEST = 40
"""Maximum characters of an action that are shown."""


class _EnoughError(Exception):
    """Ends an episode after its first steps."""


async def rehearse(experiment: Experiment, session: Session) -> str:
    """Play two steps, and describe each; an embedded model is started for it.

    Raises:
        LabError: Model or environment failed, or none of the answers could be used.
    """
    model = choose_model(experiment.model)
    steps = await _played(experiment, model, session)
    if (troubles := troubles_of(steps)).unusable:
        raise unusable(troubles, model, choose_environment(experiment.environment))
    return "; ".join(map(_described, steps))


async def _played(experiment: Experiment, model: ModelChoice, session: Session) -> Sequence[Step]:
    steps = list[Step]()

    def on_step(step: Step) -> None:
        steps.append(step)
        if len(steps) == STEPS:
            raise _EnoughError

    patience = replace(experiment.patience, attempts=1)
    with opening_model(model, os.environ) as opening:
        async with open_endpoint(opening, patience) as endpoint:
            agent = Agent(experiment.baseline, endpoint, experiment.task)
            with suppress(_EnoughError):
                await play(agent, session, experiment.seed, on_step=on_step)
    return steps


def _described(step: Step) -> str:
    action = " ".join(step.action.split())
    shown = action if len(action) <= LONGEST else f"{action[:LONGEST]} ..."
    done = ", done" if step.done else ""
    if step.trouble is None:
        return f"step {step.number}: {shown!r}, reward {number(step.reward)}{done}"
    reason = troubles_of([step]).reason(step.trouble)
    kind = TROUBLES.get(step.trouble, step.trouble)
    return f"step {step.number}: the answer was {kind} ({reason}), reward {number(step.reward)}{done}"
