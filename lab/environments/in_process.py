"""An environment in this process: its class is imported, and each session has a separate instance.

It owns what OpenEnv's server would do: the action's class, the arguments of reset, and a thread for each
session's calls, so that a slow step blocks nothing else. The thread is a daemon: a call that never returns
does not keep the process alive, as it would in a `ThreadPoolExecutor`.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import aclosing, asynccontextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from lab.environments.action import ActionError, ActionForm, Parse, refused
from lab.environments.action_class import action_classes, action_schema, made_action
from lab.environments.answer import Values
from lab.environments.config import EnvironmentConfig
from lab.environments.failures import no_grader
from lab.environments.foreign import ForeignError, foreign
from lab.environments.hooks import factory, load_named
from lab.environments.observation import Observed, View
from lab.environments.task_list import TaskList, read_tasks, reset_arguments
from lab.errors import EnvError


class OwnThread:
    """A thread that runs calls in order; it starts immediately, and ends after the last call."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        Thread(target=self._work, name="environment", daemon=True).start()

    async def call(self, make: Callable[[], Any]) -> Any:  # noqa: ANN401  # of foreign code
        """The result of `make`; if cancelled, the call still runs to its end.

        Raises:
            ForeignError: It raised anything other than a LabError.
        """
        made = Future[Any]()
        self._calls.put((made, make))
        return await asyncio.wrap_future(made)

    def end(self) -> None:
        """End the thread after the calls made so far."""
        self._calls.put(None)

    def _work(self) -> None:
        while (one := self._calls.get()) is not None:
            made, make = one
            if not made.set_running_or_notify_cancel():
                continue
            try:
                with foreign():
                    result = make()
            except Exception as error:
                made.set_exception(error)
            else:
                made.set_result(result)


CLOSE_S = 5.0
"""Time limit for closing an instance, in seconds; one that is still in a step is abandoned."""


@asynccontextmanager
async def open_in_process(
    config: EnvironmentConfig, root: Path, view: View, parse: Parse | None
) -> AsyncIterator["InProcess"]:
    """Import the environment's class, and read its schema.

    Raises:
        ConfigError: `python` does not exist, or is not an environment.
        EnvError: No instance can be created.
    """
    make = factory(await asyncio.to_thread(load_named, config, root), config.python)
    environment = InProcess(make, config, view, parse)
    try:
        await environment.inspect()
        yield environment
    finally:
        environment.close()


class InProcess:
    """An in-process environment, open once `inspect` has found its action class."""

    def __init__(
        self, make: Callable[[], Any], config: EnvironmentConfig, view: View, parse: Parse | None
    ) -> None:
        self.make, self.view, self.step_timeout_s = make, view, config.step_timeout_s
        self._python, self._parse = config.python, parse
        self._first: Any = None

    async def inspect(self) -> None:
        """Create the first session's instance, and read its action class and flags."""
        self._first = await asyncio.to_thread(self.make)
        classes = action_classes(self._first, self._python)
        self.action = partial(made_action, classes)
        self.form = ActionForm(action_schema(classes, self._python), self._parse, self.action)
        takes = inspect.signature(self._first.reset).parameters.values()
        self.takes = [one.name for one in takes if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)]
        self.takes_any = any(one.kind is one.VAR_KEYWORD for one in takes)
        lists_tools = callable(getattr(self._first, "_handle_list_tools", None))
        self._asks_tools = lists_tools and self.form.may_call_tools
        concurrent = getattr(self._first, "SUPPORTS_CONCURRENT_SESSIONS", False)
        self._alone = nullcontext() if concurrent else asyncio.Lock()

    @asynccontextmanager
    async def session(self) -> AsyncIterator["InProcessSession"]:
        """A session with a separate instance; one at a time unless the class supports concurrent sessions."""
        async with self._alone, aclosing(InProcessSession(self)) as session:
            first, self._first = self._first, None
            await session.open(first)
            if self._asks_tools:
                self.form, self._asks_tools = self.form.with_tools(await session.tools()), False
                session.form = self.form
            yield session

    async def tasks(self, named: Sequence[str] = ()) -> TaskList:
        """The named tasks, with the names of its reset's arguments: a class lists none."""
        return read_tasks(list(named), {name: {} for name in self.takes}, takes_any=False)

    def close(self) -> None:
        """Close an instance that no session has used."""
        if self._first is not None:
            with suppress(Exception), foreign():  # nothing depends on it now
                self._first.close()


class InProcessSession:
    """One instance, in a dedicated thread; its methods are described by `Session`."""

    def __init__(self, opened: InProcess) -> None:
        self.form, self.view, self._opened = opened.form, opened.view, opened
        self._environment: Any = None
        self._thread = OwnThread()

    async def open(self, environment: object = None) -> None:
        """Use this instance, or a new one."""
        if environment is None:
            environment = await self._thread.call(self._opened.make)
        self._environment = environment

    async def tools(self) -> list[dict[str, Any]]:
        """The tools that the environment lists, if any."""
        from openenv.core.env_server.mcp_types import ListToolsAction

        with suppress(Exception):  # of foreign code: it may not be an MCP environment
            seen = await self._answer("step", ListToolsAction())
            return [tool.model_dump(mode="json") for tool in seen.tools]
        return []

    async def renew(self) -> None:
        """Replace the instance with a new one."""
        await self.aclose()
        self._environment, self._thread = None, OwnThread()
        await self.open()

    async def aclose(self) -> None:
        """Close the instance in its thread, after any running call, and end the thread."""
        try:
            with suppress(Exception):  # of foreign code, or a timeout
                async with asyncio.timeout(CLOSE_S):
                    await self._thread.call(self._environment.close)
        finally:
            self._thread.end()

    async def reset(self, seed: int, arguments: Mapping[str, Any]) -> Observed:
        """Start a new episode; an environment whose reset has no seed gets none."""
        opened = self._opened
        given = reset_arguments(seed, arguments, opened.takes, takes_any=opened.takes_any)
        try:
            return await self._call("reset", **given)
        except ForeignError as error:
            raise EnvError("The environment failed.", where="reset", why=str(error)) from error

    async def step(self, action: Values) -> Observed:
        """Send an action."""
        try:
            made = self._opened.action(action)
        except ValueError as error:
            raise ActionError("The answer is not a valid action", why=str(error)) from error
        try:
            return await self._call("step", made)
        except ForeignError as error:
            raise refused(str(error)) from error

    async def state(self) -> Mapping[str, Any]:
        """The environment's state, as OpenEnv's server tells it."""
        try:
            async with asyncio.timeout(self._opened.step_timeout_s):
                state = await self._thread.call(lambda: self._environment.state)
            with foreign():
                return dict(state if isinstance(state, dict) else state.model_dump(mode="json"))
        except (ForeignError, TimeoutError) as error:
            what, why = "The environment's state cannot be read.", str(error) or "it did not answer in time"
            raise EnvError(what, where="state", why=why) from error

    async def grade(self) -> Mapping[str, Any]:
        """A class has no grader."""
        raise no_grader("only an HTTP application has one", "task.score")

    async def _call(self, name: str, *args: object, **kwargs: object) -> Observed:
        limit_s = self._opened.step_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                seen = await self._answer(name, *args, **kwargs)
        except TimeoutError as error:
            where, do = f"{name}, {limit_s:g} s", "raise environment.step_timeout_s if it needs longer"
            raise EnvError("The environment did not answer in time.", where=where, do=do) from error
        try:
            with foreign():
                shown = (seen.model_dump(mode="json", fallback=str), seen.reward, seen.done)
        except ForeignError as error:
            what = "The environment's observation is malformed."
            raise EnvError(what, where=name, why=str(error)) from error
        return self.view.observed(*shown)

    async def _answer(self, name: str, *args: object, **kwargs: object) -> Any:  # noqa: ANN401  # an Observation
        """Call the environment's coroutine if it has one, as OpenEnv's server does."""
        from openenv.core.env_server.interfaces import Environment

        own = getattr(type(self._environment), f"{name}_async", None)
        if own is not None and own is not getattr(Environment, f"{name}_async"):
            with foreign():
                return await own(self._environment, *args, **kwargs)
        call = getattr(self._environment, name)
        answer = await self._thread.call(lambda: call(*args, **kwargs))
        with foreign():
            return await answer if inspect.isawaitable(answer) else answer
