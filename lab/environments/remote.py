"""An environment at a server, or in a container: played through OpenEnv's generic client and its schema.

It owns the requests to the server, and the errors for its failures. The environment's own package is not
needed.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab.addresses import read_within, shown_url
from lab.environments.action import ActionError, ActionForm, Parse, Values, refused
from lab.environments.observation import Observed, View
from lab.environments.places import Place, Places
from lab.errors import EnvError, LabError

if TYPE_CHECKING:
    from openenv.core.client_types import StepResult
    from openenv.core.generic_client import GenericEnvClient

MOST_BYTES = 4_000_000
"""Maximum bytes of a server's schema."""

MOST_MESSAGE_MB = 16.0
"""Maximum size of an answer to a reset or a step, in MB."""

STOP_GRACE_S = 5.0
"""Seconds to wait, when stopped, for a container that is still starting."""


class Remote:
    """An environment at `url`; its schema is requested with the first session.

    Args:
        say: Called once, when the server's session limit makes episodes wait.
    """

    def __init__(
        self, url: str, view: View, parse: Parse | None, step_timeout_s: float, say: Callable[[str], None]
    ) -> None:
        self._url, self._view, self._parse = url.rstrip("/"), view, parse
        self._step_timeout_s, self._places = step_timeout_s, Places(shown_url(self._url), say)
        self._form: ActionForm | None = None
        self._asking = asyncio.Lock()

    @asynccontextmanager
    async def session(self) -> AsyncIterator["RemoteSession"]:
        """Open a WebSocket, once the server has a place for it.

        Raises:
            EnvError: The server publishes no usable action schema.
        """
        from openenv.core.generic_client import GenericEnvClient

        client = GenericEnvClient(
            base_url=self._url,
            message_timeout_s=self._step_timeout_s,
            max_message_size_mb=MOST_MESSAGE_MB,
        )
        async with AsyncExitStack() as stack:
            async with self._asking:
                place = await stack.enter_async_context(self._places.one())
                stack.push_async_callback(client.close)
                stack.callback(place.close)
                self._form = self._form or await self._published(client, place)
            yield RemoteSession(client, place, shown_url(self._url), self._form, self._view)

    async def _published(self, client: "GenericEnvClient", place: Place) -> ActionForm:
        form = ActionForm(await self._schema(), self._parse)
        try:
            if form.calls_tools:
                form = await self._with_tools(form, client, place)
            form.asked  # noqa: B018  # computed here, where an unusable schema gets its error message
        except LabError:
            raise
        except Exception as error:  # a foreign schema may contain anything
            raise _no_schema(f"it cannot be used: {type(error).__name__}", self._url) from error
        return form

    async def _with_tools(self, form: ActionForm, client: "GenericEnvClient", place: Place) -> ActionForm:
        listing = {"type": "list_tools"}
        try:
            result = await place.ask(lambda: client.step(listing), client.disconnect)
            return form.with_tools(result.observation["tools"])
        except EnvError:
            raise  # the server accepts no session
        except Exception:  # a server may not list them
            return form

    async def _schema(self) -> dict[str, Any]:
        import httpx

        url = self._url.replace("ws", "http", 1) if self._url.startswith("ws") else self._url
        # No compression: a small body may unpack to gigabytes.
        headers = {"Accept-Encoding": "identity"}
        try:
            async with (
                asyncio.timeout(self._step_timeout_s),
                httpx.AsyncClient(timeout=self._step_timeout_s, headers=headers) as client,
                client.stream("GET", f"{url}/schema") as answer,
            ):
                body = await read_within(answer.raise_for_status().aiter_raw(), MOST_BYTES)
            if body is None:
                raise _no_schema(f"it has more than {MOST_BYTES:,} bytes", url)
            schema = json.loads(body)["action"]
        except (httpx.TimeoutException, TimeoutError) as error:
            raise _failure(TimeoutError(str(error)), shown_url(self._url)) from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise _failure(ConnectionError(str(error)), shown_url(self._url)) from error
        except (httpx.HTTPStatusError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise _no_schema(f"{type(error).__name__}: {error}", url) from error
        if not isinstance(schema, dict):
            raise _no_schema(f"its action is {schema!r}", url)
        return schema


class RemoteSession:
    """One episode at a time over one WebSocket."""

    def __init__(
        self, client: "GenericEnvClient", place: Place, where: str, form: ActionForm, view: View
    ) -> None:
        self.form, self.view, self._client, self._place = form, view, client, place
        self._where = where

    async def reset(self, seed: int, arguments: Mapping[str, Any]) -> Observed:
        """Start a new episode.

        Raises:
            EnvError: It could not be started.
        """
        client = self._client
        reset = self._place.ask(lambda: client.reset(seed=seed, **arguments), client.disconnect)
        return await self._seen(reset)

    async def step(self, action: Values) -> Observed:
        """Send an action.

        Raises:
            ActionError: The server refuses it; StepError: the environment raised.
            EnvError: The server did not answer, or without an observation.
        """
        socket = self._socket
        try:
            seen = await self._seen(self._client.step(action))
        except EnvError as error:
            if self._socket is socket and (why := _error_frame(error)):
                raise _refusal(why) from error
            raise
        if self._socket is not socket:  # the client reconnects silently to a new session that was not reset
            why = "the connection was lost between two steps"
            raise _failure(ConnectionError(why), self._where)
        return seen

    async def state(self) -> Mapping[str, Any]:
        """The environment's state, from the server.

        Raises:
            EnvError: It cannot be read.
        """
        socket = self._socket
        try:
            state: Mapping[str, Any] = await self._client.state()
        except Exception as error:  # OpenEnv raises what its transport raises
            raise _failure(error, self._where) from error
        if self._socket is not socket:
            raise _failure(ConnectionError("the connection was lost after a step"), self._where)
        return state

    async def renew(self) -> None:
        """Close the WebSocket; the next reset opens another."""
        self._place.close()
        await self._client.disconnect()
        self._place.closed()

    @property
    def _socket(self) -> object:
        return getattr(self._client, "_ws", None)

    async def _seen(self, call: "Awaitable[StepResult[dict[str, Any]]]") -> Observed:
        try:
            result = await call
        except EnvError:
            raise
        except Exception as error:  # OpenEnv raises what its transport raises
            raise _failure(error, self._where) from error
        return self.view.observed(result.observation, result.reward, result.done)


@asynccontextmanager
async def container(image: str) -> AsyncIterator[str]:
    """Run a container of the image during the block; yields its URL.

    Raises:
        EnvError: It did not start.
    """
    starting = asyncio.create_task(asyncio.to_thread(_start_container, image))
    try:
        started = await asyncio.shield(starting)
    except asyncio.CancelledError:
        with suppress(Exception):  # stop a container that is still starting, if it starts soon
            started = await asyncio.wait_for(asyncio.shield(starting), STOP_GRACE_S)
            await asyncio.to_thread(started.close)
        raise
    except Exception as error:
        raise _docker_failure(error, image) from error
    try:
        yield started.url
    finally:
        await asyncio.to_thread(started.close)


@dataclass(frozen=True)
class _Container:
    url: str
    close: Callable[[], None]


def _start_container(image: str) -> _Container:
    """Start the container, in a thread: OpenEnv blocks until it is healthy, for at most half a minute."""
    from openenv.core.generic_client import GenericEnvClient

    async def start() -> "GenericEnvClient":
        client: GenericEnvClient = await GenericEnvClient.from_docker_image(image)
        await client.disconnect()  # frees its session for the episodes
        return client

    client = asyncio.run(start())

    async def stop() -> None:
        await client.close()

    return _Container(str(client.base_url), lambda: asyncio.run(stop()))


def _error_frame(error: EnvError) -> str:
    """The text of the server's error frame, a RuntimeError of OpenEnv's client; empty without one."""
    text, begins = str(error.__cause__), "Server error: "
    is_frame = isinstance(error.__cause__, RuntimeError) and text.startswith(begins)
    return text.removeprefix(begins) if is_frame else ""


def _refusal(why: str) -> ActionError:
    error = refused(why)
    if "VALIDATION_ERROR" in why:  # OpenEnv's server validates an action before the environment gets it
        return ActionError(error.what, why=error.why)
    return error


def _failure(error: Exception, where: str) -> EnvError:
    """Translate an exception of OpenEnv or its transport into an EnvError."""
    text = str(error) or f"no answer ({type(error).__name__})"
    if isinstance(error, TimeoutError):
        do = "check the server's log: it is up, but busy"
        return EnvError("The environment did not answer in time.", where=where, why=text, do=do)
    if isinstance(error, ConnectionError | OSError):
        do = "check ENV_BASE_URL, and that the server is up"
        return EnvError("The environment cannot be reached.", where=where, why=text, do=do)
    return EnvError("The environment failed.", where=where, why=text)


def _no_schema(why: str, url: str) -> EnvError:
    what, do = "The server publishes no usable action schema.", "check that it is an OpenEnv server"
    return EnvError(what, where=f"{shown_url(url)}/schema", why=why, do=do)


def _docker_failure(error: Exception, image: str) -> EnvError:
    what, where = "The environment's container did not start.", f"image {image}"
    if "Docker is not available" in str(error):
        do = "start Docker, or unset LOCAL_IMAGE_NAME and IMAGE_NAME to use the experiment's location"
        return EnvError(what, where=where, why="no Docker engine is running", do=do)
    why = str(getattr(error.__cause__, "stderr", "") or error)
    return EnvError(what, where=where, why=why, do=f"docker build -t {image} .")
