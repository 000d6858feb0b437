"""An environment in this process: its class is found in Python, and each session has an instance of its own.

It owns what OpenEnv's server does otherwise: the action's class, the arguments of reset, a thread for calls.
A session's calls are all made in one thread, so that a slow step stops nothing else.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from lab.action import ActionError, ActionForm, Parse, Values
from lab.declaration import EnvironmentConfig
from lab.errors import ConfigError, EnvError, LabError
from lab.hooks import load_named
from lab.observation import Observed, View
from lab.own_thread import OwnThread

CLOSE_S = 5.0
"""Seconds that an instance has to close; one that still steps is left to itself."""


@asynccontextmanager
async def open_in_process(
    config: EnvironmentConfig, root: Path, view: View, parse: Parse | None
) -> AsyncIterator["InProcess"]:
    """Find the environment's class and its schema.

    Raises:
        ConfigError: what `python` names is not there, or is no environment.
        EnvError: it cannot be made.
    """
    make = await asyncio.to_thread(load_named, config, root)
    environment = InProcess(make, config, view, parse)
    try:
        await environment.inspect()
        yield environment
    finally:
        environment.close()


class InProcess:
    """Opened once its actions' class is known; see `inspect`.

    Args:
        make: the environment's class, or a function that makes one.
    """

    def __init__(
        self, make: Callable[[], Any], config: EnvironmentConfig, view: View, parse: Parse | None
    ) -> None:
        self.view, self.answer_s = view, config.answer_s
        self._make, self._python, self._parse = make, config.python, parse
        self._first: Any = None
        self._knows_tools = False
        self._alone: AbstractAsyncContextManager[Any] = nullcontext()

    async def inspect(self) -> None:
        """Make one, and see what it says of itself; it is the first session's."""
        self._first = await asyncio.to_thread(self._made)
        self._action = _action_class(self._first, self._python)
        self.form = ActionForm(self._action.model_json_schema(), self._parse, self._check)
        if not getattr(self._first, "SUPPORTS_CONCURRENT_SESSIONS", False):
            self._alone = asyncio.Lock()

    @asynccontextmanager
    async def session(self) -> AsyncIterator["InProcessSession"]:
        """One instance. Of those that do not stand others beside them there is one at a time."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._alone)
            thread = OwnThread("environment")
            stack.callback(thread.end)
            environment, self._first = self._first, None
            if environment is None:
                environment = await thread.call(self._made)
            stack.push_async_callback(_close, thread, environment)
            session = InProcessSession(self, environment, thread)
            if self.form.calls_tools and not self._knows_tools:
                self.form, self._knows_tools = self.form.with_tools(await session.tools()), True
                session.form = self.form
            yield session

    def action(self, values: Values) -> Any:  # noqa: ANN401  # an OpenEnv Action
        """The action as the environment takes it."""
        return self._action.model_validate(values)

    def close(self) -> None:
        """Close the instance that no session has taken."""
        if self._first is not None:
            with suppress(Exception):  # of foreign code, and nothing depends on it any more
                self._first.close()

    def _check(self, values: Values) -> None:
        try:
            self.action(values)
        except TypeError as error:
            raise ValueError(str(error)) from error

    def _made(self) -> Any:  # noqa: ANN401  # an OpenEnv Environment
        try:
            made = self._make()
        except Exception as error:  # of foreign code
            why = f"{type(error).__name__}: {error}"
            what = "The environment could not be made."
            raise EnvError(what, where=self._python, why=why) from error
        if not all(callable(getattr(made, name, None)) for name in ("reset", "step", "close")):
            do = "name an OpenEnv Environment class, or a function without arguments that makes one"
            why = f"it makes {type(made).__name__}"
            raise ConfigError("What python names is no environment.", where=self._python, why=why, do=do)
        return made


class InProcessSession:
    """One instance in a thread of its own."""

    def __init__(self, opened: InProcess, environment: Any, thread: OwnThread) -> None:  # noqa: ANN401
        self.form = opened.form
        self._opened, self._environment, self._thread = opened, environment, thread

    async def tools(self) -> list[dict[str, Any]]:
        """The tools that can be called; none where it does not list them."""
        from openenv.core.env_server.mcp_types import ListToolsAction

        with suppress(Exception):  # of foreign code: it may be no environment of MCP tools
            seen = await self._made("step", ListToolsAction())
            return [tool.model_dump(mode="json") for tool in seen.tools]
        return []

    async def reset(self, seed: int, arguments: Mapping[str, Any]) -> Observed:
        """Begin a new episode; an environment without seeds is given none.

        Raises:
            ConfigError: an argument is none of its reset's.
            EnvError: it failed.
        """
        takes = inspect.signature(self._environment.reset).parameters
        any_name = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in takes.values())
        unknown = [name for name in arguments if name not in takes and not any_name]
        if unknown:
            what = f"The environment's reset takes no {unknown[0]!r}."
            do = f"it takes {', '.join(takes)}"
            raise ConfigError(what, where="tasks.reset", do=do)
        seeded = {"seed": seed} if "seed" in takes or any_name else {}
        return await self._call("reset", **seeded, **arguments)

    async def step(self, action: Values) -> Observed:
        """Send an action.

        Raises:
            ActionError: it is none of the environment's.
            EnvError: the environment failed.
        """
        try:
            made = self._opened.action(action)
        except (ValueError, TypeError) as error:
            raise ActionError("The answer is no action", why=str(error)) from error
        return await self._call("step", made)

    async def _call(self, name: str, *args: object, **kwargs: object) -> Observed:
        try:
            async with asyncio.timeout(self._opened.answer_s):
                seen = await self._made(name, *args, **kwargs)
            return self._opened.view.observed(
                seen.model_dump(mode="json", fallback=str), seen.reward, seen.done
            )
        except LabError:
            raise
        except TimeoutError as error:
            where = f"{name}, {self._opened.answer_s:g} s"
            raise EnvError("The environment did not answer in time.", where=where) from error
        except Exception as error:  # of foreign code
            why = f"{type(error).__name__}: {error}"
            raise EnvError("The environment failed.", where=name, why=why) from error

    async def _made(self, name: str, *args: object, **kwargs: object) -> Any:  # noqa: ANN401  # an Observation
        """By the environment's own coroutine, where it has one: as OpenEnv's server chooses."""
        from openenv.core.env_server.interfaces import Environment

        own = getattr(type(self._environment), f"{name}_async", None)
        if own is not None and own is not getattr(Environment, f"{name}_async"):
            return await own(self._environment, *args, **kwargs)
        call = getattr(self._environment, name)
        return await self._thread.call(lambda: call(*args, **kwargs))


def _action_class(environment: object, python: str) -> Any:  # noqa: ANN401  # a class of OpenEnv's Action
    """The class of its actions: from the Environment's type arguments, else from its step's annotation."""
    from openenv.core.env_server.interfaces import Environment
    from openenv.core.env_server.mcp_environment import MCPEnvironment
    from openenv.core.env_server.mcp_types import CallToolAction
    from openenv.core.env_server.types import Action

    named: list[Any] = []
    for cls in type(environment).__mro__:
        for base in getattr(cls, "__orig_bases__", ()):
            if inspect.isclass(get_origin(base)) and issubclass(get_origin(base), Environment):
                named += get_args(base)[:1]
    with suppress(Exception):  # an annotation may name what is not there at run time
        named += [_annotated(type(environment))]
    own = [one for one in named if inspect.isclass(one) and issubclass(one, Action) and one is not Action]
    if own:
        return own[0]
    if isinstance(environment, MCPEnvironment):
        return CallToolAction
    do = "annotate the action of its step with a class of OpenEnv's Action"
    raise ConfigError("The environment does not say what its actions are.", where=python, do=do)


def _annotated(cls: Any) -> Any:  # noqa: ANN401  # a class, and what annotates its step's first argument
    return get_type_hints(cls.step)[list(inspect.signature(cls.step).parameters)[1]]


async def _close(thread: OwnThread, environment: Any) -> None:  # noqa: ANN401
    """In its own thread, after what it still does."""
    with suppress(Exception):  # of foreign code, or of one that is not done in time: the session is over
        async with asyncio.timeout(CLOSE_S):
            await thread.call(environment.close)
