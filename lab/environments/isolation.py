"""Isolation: whether an environment's episodes depend on others that are played at the same time.

Concurrent episodes and pairing by seed assume that they do not. A server may keep one environment for all
sessions, or draw episodes at random.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Literal

from lab.environments.action import ActionError, ActionForm, StepError
from lab.environments.answer import Values
from lab.environments.environment import Environment, Session
from lab.environments.example import example_answer
from lab.environments.observation import Observed
from lab.errors import EnvError

Isolation = Literal["separate", "shared", "random", "single", "unknown"]
"""Episodes are separate; share an environment; differ at one seed; are played one at a time; or not known."""

STEPS = 3
"""Steps of each episode, with examples of actions."""

WAIT_S, WHOLE_S = 2.0, 150.0
"""Seconds to wait for a second session, beyond those of two episodes, and for all: a rate limit may make it
wait for a minute."""

_PASSING = re.compile(
    r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d\S*|\b1\d{9}\.\d+|\b[\da-f]{8}-?(?:[\da-f]{4}-?){3}[\da-f]{12}\b"
)
"""Times and identifiers, which differ in every episode."""

Result = tuple[str, float, bool] | str
"""What a reset or a step showed, or why it was refused."""


@dataclass(frozen=True)
class _Episode:
    """What was seen of an episode: the results, and the state after each; empty if it cannot be read."""

    results: tuple[Result, ...]
    states: tuple[str, ...]


async def isolation_of(
    environment: Environment, seed: int, tasks: Sequence[Mapping[str, Any]] = ({},)
) -> Isolation:
    """Play an episode twice, and once more while another session is reset before each of its steps.

    Args:
        tasks: Arguments of reset: those of the episode, and others for the other session too.

    Raises:
        EnvError, ConfigError: The environment cannot be opened, or failed in an episode by itself.
    """
    try:
        async with asyncio.timeout(WHOLE_S), AsyncExitStack() as stack:
            session = await stack.enter_async_context(environment.session())
            began_s = time.monotonic()
            first, again = [await _episode(session, seed, tasks[0]) for _ in range(2)]
            if first.results != again.results:
                return "random"
            took_s = time.monotonic() - began_s
            others = cycle((*tasks[1:2], tasks[0]))
            try:
                async with asyncio.timeout(WAIT_S + took_s):  # reset waits for the session's place
                    other = await stack.enter_async_context(environment.session())
                    await other.reset(seed + 1, next(others))
            except (TimeoutError, EnvError):
                return "single"
            try:
                beside = await _episode(session, seed, tasks[0], lambda: other.reset(seed + 1, next(others)))
            except EnvError:  # each works by itself
                return "shared"
            if beside.results != first.results:
                return "shared"
            if len({one for one in first.results[1:] if not isinstance(one, str)}) > 1:
                return "separate"
            # Where every step shows the same, another's is noticed only by a state, if that repeats.
            repeats = first.states == again.states
            return "shared" if repeats and beside.states != first.states else "unknown"
    except (TimeoutError, ActionError):
        return "unknown"


async def _episode(
    session: Session,
    seed: int,
    arguments: Mapping[str, Any],
    before: Callable[[], Awaitable[object]] | None = None,
) -> _Episode:
    """Play an episode; `before` is called before each step."""
    seen = await session.reset(seed, arguments)
    results, states = [_result(seen)], list[str]()
    for action in _actions(session.form):
        if seen.done:
            break
        if before is not None:
            await before()
        try:
            seen = await session.step(action)
            results.append(_result(seen))
        except StepError:  # the episode cannot go on
            raise
        except ActionError as error:
            results.append(_lasting(error.one_line))
        with suppress(EnvError):
            states.append(_lasting(repr(await session.state())))
    return _Episode(tuple(results), tuple(states))


def _result(seen: Observed) -> Result:
    return _lasting(seen.text), seen.reward, seen.done


def _lasting(text: str) -> str:
    """The text without times and identifiers."""
    return _PASSING.sub("", text)


def _actions(form: ActionForm) -> list[Values]:
    """Examples of actions, different ones where the form is a text."""
    answer = example_answer(form)
    if form.words:
        answers = [form.words[step % len(form.words)] for step in range(STEPS)]
    else:
        answers = [answer * (step + 1 if form.text_field else 1) for step in range(STEPS)]
    return [form.read(one).values for one in answers]
