"""An Appearance: a submission's episodes, one for each task, played in a child process.

It owns opening and closing, the end of each episode, and the messages to the parent; `inference.py` prints.
"""

import asyncio
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lab.agent.agent import Agent
from lab.agent.rollout import play
from lab.agent.step import Step
from lab.environments.config import choose_environment
from lab.environments.environment import Environment, Session, open_environment
from lab.errors import LabError
from lab.llm.client import Endpoint
from lab.llm.dialect import Dialect, changed
from lab.llm.launch import open_endpoint, opening_model
from lab.llm.settings import ModelChoice
from lab.llm.throttle import Patience
from lab.submission.child import Message, Tell
from lab.submission.frozen import FrozenPrompt
from lab.submission.turns import CLOSING_S, Share, Turn, opening_share, share_of

PATIENCE = Patience(attempts=3, whole_s=180.0)
"""Limits on model calls: a step without an answer sends the fallback, and the deadline is near."""

TOLD = ("number", "action", "reward", "done", "trouble", "own_score")
"""Attributes of a step that are sent to the parent, with the error that it reports."""


@dataclass(frozen=True)
class Appearance:
    """The episodes to play.

    Attributes:
        root: Project folder.
        last_s: The deadline of all turns, by `time.monotonic`.
    """

    frozen: FrozenPrompt
    model: ModelChoice
    root: Path
    turns: Sequence[Turn]
    last_s: float

    def play(self, start: Message, tell: Tell) -> None:
        """Play the turns from number `start["turn"]` on, and send each step, and each turn's exit code.

        `{"opened": True}` comes before a turn's steps, when environment and model are open; with an exit code
        comes whether another turn follows in this process. What the endpoint turns out to accept is sent too,
        and is in the `start` of the process that plays on after this one was taken down.
        """
        try:
            dialect = Dialect.from_table(start["dialect"])
            learnt = replace(self, model=replace(self.model, dialect=dialect))
            asyncio.Runner().run(learnt._play(start["turn"], tell))
        except BaseException as error:  # of a task of foreign code, which ended the event loop
            say(f"The episode failed: {type(error).__name__}: {error}")
            tell({"exit_code": 1, "goes_on": False})

    async def _play(self, first: int, tell: Tell) -> None:
        stage = _Stage(self, tell)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stage.stop)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number, turn in enumerate(self.turns[first:], first):
            left = len(self.turns) - number
            exit_code, whole = await _play_turn(stage, turn, left, tell)
            await stage.leave(everything=not whole or left == 1)
            goes_on = left > 1 and not stage.stopping
            tell({"exit_code": exit_code, "goes_on": goes_on})
            if not goes_on:
                break


class _Stage:
    """The environment and model that the episodes share: opened by the first, and again after a failure."""

    def __init__(self, appearance: Appearance, tell: Tell) -> None:
        self.appearance, self.stopping = appearance, False
        self._model, self._tell = appearance.model, tell
        self._playing: asyncio.Task[Any] | None = None
        self._shared, self._session = AsyncExitStack(), AsyncExitStack()
        self._opened: tuple[Environment, Endpoint] | None = None

    @contextmanager
    def playing(self) -> Iterator[None]:
        """Let `stop` cancel the current task meanwhile."""
        self._playing = asyncio.current_task()
        try:
            yield
        finally:
            self._playing = None

    def stop(self) -> None:
        """End the running episode and play no other; closing is not interrupted."""
        self.stopping = True
        if self._playing is not None:
            self._playing.cancel()

    async def open(self) -> None:
        """Open environment and model, unless they are open."""
        self._opened = self._opened or await self._open()

    async def enter(self) -> tuple[Session, Agent]:
        """A new session of what is open, and the agent that plays it."""
        assert self._opened is not None
        environment, endpoint = self._opened
        session = await self._session.enter_async_context(environment.session())
        return session, Agent(self.appearance.frozen.candidate, endpoint, self.appearance.frozen.task)

    async def _open(self) -> tuple[Environment, Endpoint]:
        with_all = self._shared.enter_async_context
        opening = self._shared.enter_context(opening_model(self._model))
        where = choose_environment(self.appearance.frozen.environment)
        environment = await with_all(open_environment(where, self.appearance.root))
        endpoint = await with_all(open_endpoint(opening, PATIENCE))
        endpoint.learning.on_change = self._on_dialect
        await with_all(self._session)
        return environment, endpoint

    def _on_dialect(self, dialect: Dialect, why: str) -> None:
        say(f"Note: {changed(dialect, why)}")
        self._model = replace(self._model, dialect=dialect)
        self._tell({"dialect": dialect.as_table()})

    async def leave(self, *, everything: bool) -> None:
        """Close the session, or everything; also if closing the session fails."""
        try:
            async with asyncio.timeout(CLOSING_S):
                await (self._shared if everything else self._session).aclose()
        except BaseException as error:  # the steps count even if closing fails
            say(f"Closing failed: {type(error).__name__}: {error}")
            if not everything:
                await self.leave(everything=True)
        if everything:
            self._opened = None


async def _play_turn(stage: _Stage, turn: Turn, left: int, tell: Tell) -> tuple[int, bool]:
    """Play the first of `left` turns until the episode, the deadline or SIGTERM ends it.

    Expected errors go to stderr.

    Returns:
        The exit code, 0 also if the deadline ended it; and whether it ended by itself, without an error.
    """
    steps, is_open = 0, False

    def on_step(step: Step) -> None:
        nonlocal steps
        steps = step.number
        told = {name: getattr(step, name) for name in TOLD}
        tell({**told, "error": step.reported_error})

    try:
        with stage.playing():
            async with _until(opening_share(time.monotonic(), stage.appearance.last_s, left)):
                await stage.open()
            is_open = True
            tell({"opened": True})
            async with _until(share_of(time.monotonic(), stage.appearance.last_s, left)):
                session, agent = await stage.enter()
                await play(agent, session, turn.seed, on_step=on_step, fall_back=True)
        return 0, True
    except TimeoutError:
        what = f"after {steps} steps" if is_open else "before environment and model were open"
        say(f"The deadline ended the episode {what}. To move it, set DEADLINE_S.")
        return 0, False
    except asyncio.CancelledError:
        pass  # by SIGTERM
    except LabError as error:
        say(str(error))
    except BaseException as error:  # of foreign code
        say(f"The episode failed: {type(error).__name__}: {error}")
    return 1, False


def _until(share: Share) -> asyncio.Timeout:
    return asyncio.timeout(share.play_until_s - time.monotonic())


def say(text: str) -> None:
    """Print to stderr, ignoring a closed one."""
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)  # noqa: T201
