"""A Rehearsal: the calls of a study, before it makes them.

It owns the choice of calls: each free sampling setting at both ends, then those that a server may drop at an
extreme, then the first two steps of an episode with the baseline's prompt. The doctor reports the result.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

from lab.agent.agent import Agent
from lab.agent.rollout import play
from lab.agent.step import Step, troubles_of
from lab.environments.config import choose_environment
from lab.environments.environment import Session
from lab.errors import RequestError
from lab.experiment.experiment import Experiment
from lab.experiment.model_schema import PricedModel
from lab.experiment.space import with_settings
from lab.llm.client import Endpoint, Message
from lab.llm.dialect import Dialect
from lab.llm.launch import open_endpoint, opening_model
from lab.llm.sampling import UNLISTED, SamplingParams
from lab.llm.throttle import Patience
from lab.search.first_answers import unusable
from lab.search.trouble_words import TROUBLES
from lab.stats.format import number

STEPS = 2

LONGEST = 40
"""Maximum characters of an action that are shown."""


OnDialect = Callable[[Dialect, str], None]
"""Called when the endpoint's dialect turns out to be another, with the reason."""

ASK = [Message("system", "This is a test of the connection."), Message("user", "Say: ok.")]

TALE, TALE_TOKENS = [Message("user", "Tell a story of a fox and a crow.")], 60
"""What is asked to see a setting's effect, and how long the answer may be."""

WARM = 1.0
"""A temperature at which a story is hardly told twice in the same words."""

EXTREMES: dict[str, Any] = {
    "temperature": WARM,
    "top_p": 0.01,
    "top_k": 1,
    "min_p": 1.0,
    "presence_penalty": 2.0,
    "frequency_penalty": 2.0,
    "repetition_penalty": 2.0,
}
"""Values at which a setting is seen in one answer."""

NARROWING = ("top_p", "top_k", "min_p")
"""Settings of which the extreme leaves only the likeliest token."""

ANSWER_S = 60.0
"""Time limit of an answer to it, in seconds: some endpoints load the model first."""


def ends(experiment: Experiment) -> list[SamplingParams]:
    """The start's sampling parameters, with all free ones at their first ends, then at their next ones."""
    space, start = experiment.space, experiment.space.start
    known = (*start.sampling.settings, *UNLISTED, "stop")
    sampling = {name: one for name, one in space.free.items() if name in known}
    several = max((len(one.ends) for one in sampling.values()), default=1)
    settings = (
        {name: one.ends[place % len(one.ends)] for name, one in sampling.items()} for place in range(several)
    )
    return [with_settings(start, one, space.templates, space.demonstrations).sampling for one in settings]


@asynccontextmanager
async def _opened(
    model: PricedModel, patience: Patience, on_dialect: OnDialect | None = None
) -> AsyncIterator[Endpoint]:
    """The model's endpoint; an embedded model is started for it."""
    with opening_model(model.choice) as opening:
        async with open_endpoint(opening, patience) as endpoint:
            if on_dialect is not None:
                endpoint.learning.on_change = on_dialect
            yield endpoint


def _once(model: PricedModel) -> Patience:
    return replace(model.patience, attempts=1, timeout_s=ANSWER_S, whole_s=ANSWER_S)


async def try_ends(experiment: Experiment, model: PricedModel, on_dialect: OnDialect) -> float:
    """Call the model with each of `ends`; returns the seconds of the first answer.

    Raises:
        LabError: A call failed.
    """
    async with _opened(model, _once(model), on_dialect) as endpoint:
        answers = [await endpoint.complete(ASK, sampling) for sampling in ends(experiment)]
    return answers[0].latency_s


async def without_effect(experiment: Experiment, model: PricedModel) -> list[str]:
    """The free settings of `EXTREMES` that change no answer: a server may drop what it does not know.

    At temperature 0 a strong penalty changes the answer. At `WARM` it is another one, unless the likeliest
    token alone is left or the server does not sample. A value that is refused shows nothing; so does another
    answer where that of temperature 0 is not steady.

    Raises:
        LabError: A call failed.
    """
    omit, extra = {*model.choice.dialect.omit}, experiment.baseline.sampling.extra
    if "temperature" in omit:
        omit |= {*NARROWING}
    free = [name for name in EXTREMES if name in experiment.space.free and name not in omit]
    if not free:
        return []
    plain, lost = SamplingParams(temperature=0.0, max_tokens=TALE_TOKENS, extra=extra), list[str]()
    warm = replace(plain, temperature=WARM)
    async with _opened(model, _once(model)) as endpoint:

        async def tale(sampling: SamplingParams) -> str:
            return (await endpoint.complete(TALE, sampling)).text

        usual = await tale(plain)
        samples = not {"temperature", *NARROWING} & {*free} or await tale(warm) != usual

        async def is_lost(name: str) -> bool:
            narrows = name in NARROWING
            if name == "temperature" or (narrows and not samples):
                return not samples
            answer = await tale(replace(warm if narrows else plain, **{name: EXTREMES[name]}))
            return answer != usual and usual == await tale(plain) if narrows else answer == usual

        for name in free:
            with suppress(RequestError):
                lost += [name] if await is_lost(name) else []
    return lost if usual else []


class _EnoughError(Exception):
    """Ends an episode after its first steps."""


async def rehearse(
    experiment: Experiment, model: PricedModel, session: Session, on_dialect: OnDialect
) -> Sequence[Step]:
    """Play two steps; an embedded model is started for it.

    Raises:
        LabError: Model or environment failed, or none of the answers could be used.
    """
    steps = list[Step]()

    def on_step(step: Step) -> None:
        steps.append(step)
        if len(steps) == STEPS:
            raise _EnoughError

    async with _opened(model, replace(model.patience, attempts=1), on_dialect) as endpoint:
        agent = Agent(experiment.baseline, endpoint, experiment.task)
        with suppress(_EnoughError):
            await play(agent, session, experiment.seed, on_step=on_step)
    if (troubles := troubles_of(steps)).unusable:
        raise unusable(troubles, model.choice, choose_environment(experiment.environment))
    return steps


def described(step: Step) -> str:
    """A step's action, reward and trouble."""
    action = " ".join(step.action.split())
    shown = action if len(action) <= LONGEST else f"{action[:LONGEST]} ..."
    done = ", done" if step.done else ""
    if step.trouble is None:
        return f"step {step.number}: {shown!r}, reward {number(step.reward)}{done}"
    reason = troubles_of([step]).reason(step.trouble)
    kind = TROUBLES.get(step.trouble, step.trouble)
    return f"step {step.number}: the answer was {kind} ({reason}), reward {number(step.reward)}{done}"
