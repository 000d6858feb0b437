"""An Appearance: a submission's single episode, played in its child process.

It owns opening and closing, the end of the episode, and the messages to the parent; `inference.py` prints.
"""

import asyncio
import os
import signal
import sys
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from lab.agent.agent import Agent
from lab.agent.rollout import OnStep, play
from lab.agent.step import Step
from lab.environments.config import choose_environment
from lab.environments.environment import open_environment
from lab.errors import LabError
from lab.llm.dialect import changed
from lab.llm.launch import open_endpoint, opening_model
from lab.llm.settings import ModelChoice
from lab.llm.throttle import Patience
from lab.submission.child import Tell
from lab.submission.frozen import FrozenPrompt

SEED = 0

PATIENCE = Patience(attempts=3, whole_s=180.0)
"""Limits on model calls: a step without an answer sends the fallback, and the deadline is near."""

CLOSING_S = 8.0
"""Time limit for closing environment and model, in seconds."""

TOLD = ("number", "action", "reward", "done", "error", "trouble")
"""Attributes of a step that are sent to the parent."""


@dataclass(frozen=True)
class Appearance:
    """The episode to play.

    Attributes:
        root: Project folder.
        last_s: Time at which the episode is ended, by `time.monotonic`.
    """

    frozen: FrozenPrompt
    model: ModelChoice
    root: Path
    last_s: float

    def play(self, tell: Tell) -> None:
        """Play, and send each step and the exit code; an exception in foreign code ends only the episode."""
        exit_code = 1
        try:
            exit_code = asyncio.Runner().run(self._played(tell))
        except BaseException as error:
            say(f"The episode failed: {type(error).__name__}: {error}")
        tell({"exit_code": exit_code})

    async def _played(self, tell: Tell) -> int:
        """Play until the episode, the deadline or SIGTERM ends it; expected errors go to stderr."""
        task, steps = asyncio.current_task(), 0
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

        def on_step(step: Step) -> None:
            nonlocal steps
            steps = step.number
            tell({name: getattr(step, name) for name in TOLD})

        try:
            async with asyncio.timeout(self.last_s - time.monotonic()):
                await self._play(on_step)
        except TimeoutError:
            say(f"The deadline ended the episode after {steps} steps. To move it, set DEADLINE_S.")
        except asyncio.CancelledError:
            return 1
        except LabError as error:
            say(str(error))
            return 1
        return 0

    async def _play(self, on_step: OnStep) -> None:
        stack = AsyncExitStack()
        try:
            opening = stack.enter_context(opening_model(self.model, os.environ))
            where = choose_environment(self.frozen.environment)
            environment = await stack.enter_async_context(open_environment(where, self.root))
            endpoint = await stack.enter_async_context(open_endpoint(opening, PATIENCE))
            endpoint.learning.on_change = lambda dialect, why: say(f"Note: {changed(dialect, why)}")
            session = await stack.enter_async_context(environment.session())
            agent = Agent(self.frozen.candidate, endpoint, self.frozen.task)
            await play(agent, session, self._seed(), on_step=on_step, fall_back=True)
        finally:
            try:
                async with asyncio.timeout(CLOSING_S):
                    await stack.aclose()
            except BaseException as error:  # the steps count even if closing fails
                say(f"Closing failed: {type(error).__name__}: {error}")

    def _seed(self) -> int:
        """The seed that plays the requested task."""
        task = self.frozen.task
        names, wanted = [setup.name for setup in task.tasks], os.environ.get("TEST_TASK")
        if names and wanted and wanted not in names:
            say(f"Note: unknown task {wanted!r}; playing {names[0]!r}, one of {', '.join(names)}.")
        return task.seed_of(wanted or "") + SEED * max(len(names), 1)


def say(text: str) -> None:
    """Print to stderr, ignoring a closed one."""
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)  # noqa: T201
