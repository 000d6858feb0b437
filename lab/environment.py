"""The Environment as the lab plays it: opened in process, by URL, or from a Docker image, all alike.

It owns the opening, the sessions (one an episode at a time), and the words for what goes wrong there.
OpenEnv takes seconds to import, so nothing of it is imported before an environment is opened.
"""

import asyncio
import importlib
import math
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lab.endpoint import shown_url
from lab.errors import ConfigError, EnvError

if TYPE_CHECKING:
    from openenv.core.client_types import StepResult

    from lab.environments.echo.client import TestEnv
    from lab.environments.echo.models import TestObservation
    from lab.environments.echo.server.echo_environment import EchoEnvironment

ENVIRONMENTS = ("echo",)

ANSWER_S = 60.0
"""Seconds that a server has to answer a reset or a step."""

STOP_GRACE_S = 5.0
"""Seconds that a stop waits for a container that is still on its way up."""


@dataclass(frozen=True)
class EnvironmentConfig:
    """Where the environment is: at `url`, else in a container of `image`, else in this process.

    Attributes:
        answer_s: seconds that a server has to answer a reset or a step.
    """

    name: str
    url: str | None = None
    image: str | None = None
    answer_s: float = ANSWER_S

    def __post_init__(self) -> None:
        if self.name not in ENVIRONMENTS:
            do = f"use one of: {', '.join(ENVIRONMENTS)}"
            raise ConfigError(f"There is no environment {self.name!r}.", where="environment", do=do)


@dataclass(frozen=True)
class Observed:
    """What reset or step brought back: the observation's text, the reward, whether the episode is over."""

    text: str
    reward: float
    done: bool


class Session(Protocol):
    """One place to play episodes, one after the other. Every method raises EnvError."""

    async def reset(self, seed: int) -> Observed:
        """Begin a new episode."""

    async def step(self, action: str) -> Observed:
        """Send the agent's text."""


class Environment(Protocol):
    """An opened environment."""

    def session(self) -> AbstractAsyncContextManager[Session]:
        """Open a session of one's own; many may be open at once."""


@asynccontextmanager
async def open_environment(config: EnvironmentConfig) -> AsyncIterator[Environment]:
    """Open the environment, and close it (with its container) at the end.

    Raises:
        EnvError: it cannot be opened; the message says what to do.
    """
    await asyncio.to_thread(_import_openenv)
    if config.url:
        yield _Remote(config.url, config.answer_s)
    elif config.image:
        async with _container(config.image) as remote:
            yield remote
    else:
        yield _InProcess()


def _import_openenv() -> None:
    """Import OpenEnv without gradio, its web page: 3 s of CPU instead of 10, 77 MB instead of 192."""
    absent = "gradio" not in sys.modules
    if absent:
        sys.modules["gradio"] = None  # type: ignore[assignment]
    try:
        importlib.import_module("lab.environments.echo.client")
    finally:
        if absent:
            sys.modules.pop("gradio", None)


class _InProcess:
    def __init__(self) -> None:
        from lab.environments.echo.server.echo_environment import EchoEnvironment

        self._environment = EchoEnvironment

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        yield _InProcessSession(self._environment())


class _InProcessSession:
    def __init__(self, environment: "EchoEnvironment") -> None:
        from lab.environments.echo.models import TestAction

        self._environment, self._action = environment, TestAction

    async def reset(self, seed: int) -> Observed:
        seen = self._environment.reset(seed=seed)
        return _observed(seen.echoed_message, seen.reward, seen.done)

    async def step(self, action: str) -> Observed:
        seen = self._environment.step(self._action(message=action))
        return _observed(seen.echoed_message, seen.reward, seen.done)


class _Remote:
    def __init__(self, url: str, answer_s: float) -> None:
        from lab.environments.echo.client import TestEnv

        self._client, self._url, self._answer_s = TestEnv, url, answer_s

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        client = self._client(base_url=self._url, message_timeout_s=self._answer_s)
        try:
            yield _RemoteSession(client, shown_url(self._url))
        finally:
            await client.close()


class _RemoteSession:
    def __init__(self, client: "TestEnv", where: str) -> None:
        from lab.environments.echo.models import TestAction

        self._client, self._where, self._action = client, where, TestAction

    async def reset(self, seed: int) -> Observed:
        return await self._seen(self._client.reset(seed=seed))

    async def step(self, action: str) -> Observed:
        return await self._seen(self._client.step(self._action(message=action)))

    async def _seen(self, call: "Awaitable[StepResult[TestObservation]]") -> Observed:
        try:
            result = await call
        except Exception as error:  # OpenEnv raises what its transport raises
            raise _remote_failure(error, self._where) from error
        return _observed(result.observation.echoed_message, result.reward, result.done)


@asynccontextmanager
async def _container(image: str) -> AsyncIterator[_Remote]:
    starting = asyncio.create_task(asyncio.to_thread(_start_container, image))
    try:
        container = await asyncio.shield(starting)
    except asyncio.CancelledError:
        with suppress(Exception):  # a container on its way up is not left behind, if it comes up soon
            container = await asyncio.wait_for(asyncio.shield(starting), STOP_GRACE_S)
            await asyncio.to_thread(container.close)
        raise
    except Exception as error:
        raise _docker_failure(error, image) from error
    try:
        yield _Remote(container.url, ANSWER_S)
    finally:
        await asyncio.to_thread(container.close)


@dataclass(frozen=True)
class _Container:
    url: str
    close: Callable[[], None]


def _start_container(image: str) -> _Container:
    """Start the container, in a thread: OpenEnv blocks until it is healthy, half a minute at most."""
    from lab.environments.echo.client import TestEnv

    async def start() -> "TestEnv":
        client: TestEnv = await TestEnv.from_docker_image(image)
        await client.disconnect()  # its session's place is for the episodes
        return client

    client = asyncio.run(start())

    async def stop() -> None:
        await client.close()

    return _Container(str(client.base_url), lambda: asyncio.run(stop()))


def _observed(text: object, reward: object, done: object) -> Observed:
    """What came back, checked: a server may send anything. No reward, as OpenEnv allows, is one of 0."""
    value = 0.0 if reward is None else reward
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise EnvError("The environment's reward is no number.", why=f"reward {reward!r}")
    if not isinstance(text, str) or not isinstance(done, bool):
        raise EnvError("The environment's observation is malformed.", why=f"text {text!r}, done {done!r}")
    # A lone surrogate can come through JSON, and could be neither sent on nor written.
    return Observed(text.encode("utf-8", "replace").decode("utf-8"), float(value), done)


def _remote_failure(error: Exception, where: str) -> EnvError:
    """OpenEnv's exceptions carry their kind in the text alone."""
    text = str(error) or f"no answer ({type(error).__name__})"
    if "CAPACITY_REACHED" in text:
        do = "lower search.in_flight, or raise the server's max_concurrent_envs"
        return EnvError("The environment's server is full.", where=where, why=text, do=do)
    if isinstance(error, TimeoutError):
        do = "look at the server's log: it is there, and busy with something else"
        return EnvError("The environment did not answer in time.", where=where, why=text, do=do)
    if isinstance(error, ConnectionError | OSError):
        do = "check ENV_BASE_URL, and that the server is up"
        return EnvError("The environment cannot be reached.", where=where, why=text, do=do)
    return EnvError("The environment failed.", where=where, why=text)


def _docker_failure(error: Exception, image: str) -> EnvError:
    what, where = "The environment's container did not start.", f"image {image}"
    if "Docker is not available" in str(error):
        do = "start Docker, or unset LOCAL_IMAGE_NAME and IMAGE_NAME to play in this process"
        return EnvError(what, where=where, why="there is no running Docker engine", do=do)
    why = str(getattr(error.__cause__, "stderr", "") or error)
    return EnvError(what, where=where, why=why, do=f"docker build -t {image} .")
