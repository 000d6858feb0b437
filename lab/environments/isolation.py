"""Isolation: whether an environment's episodes depend on others that are played at the same time.

Concurrent episodes and pairing by seed assume that they do not. A server may keep one environment for all
sessions, or draw episodes at random.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Literal

from lab.environments.action import ActionError, ActionForm, StepError
from lab.environments.answer import Values
from lab.environments.environment import Environment, Session
from lab.environments.example import example_answer
from lab.errors import EnvError

Isolation = Literal["separate", "shared", "random", "single", "unknown"]
"""Episodes are separate; share an environment; differ at one seed; are played one at a time; or not known."""

STEPS = 3
"""Steps of each episode, with examples of actions."""

WAIT_S, WHOLE_S = 2.0, 60.0
"""Seconds to wait for a second session, and for all."""

Result = tuple[str, float, bool] | str
"""What a reset or a step showed, or why it was refused."""


async def isolation_of(environment: Environment, seed: int, arguments: Mapping[str, Any]) -> Isolation:
    """Play an episode twice, and once more while another session is reset before each of its steps.

    Raises:
        EnvError, ConfigError: The environment cannot be opened, or failed in an episode by itself.
    """
    try:
        async with asyncio.timeout(WHOLE_S), AsyncExitStack() as stack:
            session = await stack.enter_async_context(environment.session())
            actions = _actions(session.form)
            first = await _episode(session, seed, arguments, actions)
            if first != await _episode(session, seed, arguments, actions):
                return "random"
            shown = {one for one in first[1:] if not isinstance(one, str)}
            if len(shown) < 2:  # where every step shows the same, another's would not be noticed
                return "unknown"
            try:
                async with asyncio.timeout(WAIT_S):
                    other = await stack.enter_async_context(environment.session())
            except (TimeoutError, EnvError):
                return "single"
            await other.reset(seed + 1, arguments)
            try:
                beside = await _episode(
                    session, seed, arguments, actions, lambda: other.reset(seed + 1, arguments)
                )
            except EnvError:  # each works by itself
                return "shared"
            return "separate" if beside == first else "shared"
    except (TimeoutError, ActionError):
        return "unknown"


def _actions(form: ActionForm) -> list[Values]:
    """Examples of actions, different ones where the form is a text."""
    answer = example_answer(form)
    if form.words:
        answers = [form.words[step % len(form.words)] for step in range(STEPS)]
    else:
        answers = [answer * (step + 1 if form.text_field else 1) for step in range(STEPS)]
    return [form.read(one).values for one in answers]


async def _episode(
    session: Session,
    seed: int,
    arguments: Mapping[str, Any],
    actions: Sequence[Values],
    before: Callable[[], Awaitable[object]] | None = None,
) -> list[Result]:
    """The results of an episode; `before` is called before each step."""
    seen = await session.reset(seed, arguments)
    results: list[Result] = [(seen.text, seen.reward, seen.done)]
    for action in actions:
        if seen.done:
            break
        if before is not None:
            await before()
        try:
            seen = await session.step(action)
            results.append((seen.text, seen.reward, seen.done))
        except StepError:  # the episode cannot go on
            raise
        except ActionError as error:
            results.append(error.one_line)
    return results
