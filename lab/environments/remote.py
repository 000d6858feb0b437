"""An environment at a server: played through OpenEnv's generic client, or through its own HTTP application.

It owns the choice between the two, and the WebSocket's sessions. The environment's own package is not needed.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from lab.addresses import shown_url
from lab.environments.action import ActionError, ActionForm, Parse, StepError, refused
from lab.environments.answer import Values
from lab.environments.config import EnvironmentConfig
from lab.environments.failures import (
    failure,
    no_environment,
    no_episodes,
    no_grader,
    no_schema,
    older_protocol,
)
from lab.environments.http_session import HttpServer, HttpSession
from lab.environments.observation import Observed, View, result_of
from lab.environments.places import Place, Places
from lab.environments.schema import Schema, words
from lab.environments.server import Server, ask
from lab.environments.task_list import TaskList, read_tasks
from lab.environments.wire import Wire
from lab.errors import EnvError

if TYPE_CHECKING:
    from openenv.core.client_types import StepResult
    from openenv.core.generic_client import GenericEnvClient

MOST_MESSAGE_MB = 16.0
"""Maximum size of an answer to a reset or a step, in MB."""

_ERROR = "Server error: "
"""Begins the text of an error frame."""


class Remote:
    """An environment at a declaration's URL; the first session determines what the server is.

    Args:
        say: Called once, when the server's session limit makes episodes wait.
    """

    def __init__(
        self, config: EnvironmentConfig, view: View, parse: Parse | None, say: Callable[[str], None]
    ) -> None:
        self._config, self._view, self._parse, self._say = config, view, parse, say
        self._where = shown_url(config.address.rstrip("/"))
        self._places = Places(self._where, say)
        self._server: Server | None = None
        self._form: ActionForm | None = None
        self._http: HttpServer | None = None
        self._asking = asyncio.Lock()

    @asynccontextmanager
    async def session(self) -> AsyncIterator["RemoteSession | HttpSession"]:
        """Open a session, once the server has a place for it.

        Raises:
            EnvError: The server cannot be reached, or is not an environment; see `lab.environments.server`.
        """
        async with AsyncExitStack() as stack:
            async with self._asking:
                session = await self._open(stack)
            yield session

    async def tasks(self, named: Sequence[str] = ()) -> TaskList:
        """The named tasks, else those that the server lists at `/tasks`, or that its reset allows."""
        server = await self._asked()
        found: object = list(named)
        if not named:
            async with Wire(server.url, server.headers, self._config.step_timeout_s) as wire:
                listed = await wire.ask("GET", f"{server.http.prefix if server.http else ''}/tasks")
            found = listed.json() if listed.found else None
        if server.http is None:
            return read_tasks(found, {}, takes_any=True)
        reset, step = server.http.reset, server.http.step
        defs = {"$defs": reset.body.get("$defs", {})}
        takes = {name: {**one, **defs} for name, one in reset.named.items()}
        for name in server.http.shared:  # a step may say what reset does not
            if name in step.named and not words(takes[name]):
                takes[name] = {**step.named[name], **defs}
        return read_tasks(found, takes, takes_any=reset.open)

    async def _asked(self) -> Server:
        self._server = self._server or await ask(self._config)
        return self._server

    async def _open(self, stack: AsyncExitStack) -> "RemoteSession | HttpSession":
        server = await self._asked()
        if self._http is None and server.schema is not None:
            client = _client(server, self._config.step_timeout_s)
            place = await stack.enter_async_context(self._places.one())
            stack.push_async_callback(client.close)
            stack.callback(place.close)  # first: the server lets another in before the client is closed
            if self._form is None:
                await self._choose(server, server.schema, client, place)
            if self._form is not None:
                return RemoteSession(client, place, self._where, self._form, self._view)
        self._http = self._http or self._application(server, "there is no /schema")
        return await stack.enter_async_context(self._http.session())

    async def _choose(self, server: Server, schema: Schema, client: "GenericEnvClient", place: Place) -> None:
        """Set the action's form if the server's WebSocket speaks OpenEnv; else play its application."""
        if refusal := await _not_openenv(client, place, self._where):
            self._http = self._application(server, refusal)
            return
        form = self._usable(schema)
        if form.may_call_tools:
            form = await self._with_tools(form, client, place)
        if form.is_empty and self._parse is None:
            why = "its action has no fields, and the environment lists no tools"
            if server.http is None or server.http.stateless or self._usable(server.http.action).is_empty:
                raise no_schema(why, f"{self._where}/schema")
            self._http = self._application(server, why)  # whose document has them
            return
        self._form = form

    def _application(self, server: Server, refusal: str) -> HttpServer:
        """The server's own HTTP application; `refusal` is why its WebSocket is not played."""
        if server.http is None:
            why = f"{refusal}; /openapi.json names no /reset and /step"
            raise no_environment(self._where, why)
        if server.http.stateless:
            raise no_episodes(refusal, self._where)
        form, timeout_s = self._usable(server.http.action), self._config.step_timeout_s
        if form.is_empty and self._parse is None:
            if server.http.older:
                raise older_protocol(self._where)
            raise no_schema("/openapi.json does not name what /step takes", f"{self._where}/openapi.json")
        return HttpServer(
            lambda: Wire(server.url, server.headers, timeout_s), server.http, form, self._view, self._say
        )

    def _usable(self, schema: Schema) -> ActionForm:
        form = ActionForm(schema, self._parse)
        try:
            form.asked  # noqa: B018  # computed here, where an unusable schema gets its error message
        except Exception as error:  # a foreign schema may contain anything
            why = f"it cannot be used: {type(error).__name__}"
            raise no_schema(why, f"{self._where}/schema") from error
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


def _client(server: Server, step_timeout_s: float) -> "GenericEnvClient":
    from openenv.core.generic_client import GenericEnvClient

    return GenericEnvClient(
        base_url=server.url,
        message_timeout_s=step_timeout_s,
        max_message_size_mb=MOST_MESSAGE_MB,
        headers=dict(server.headers),
    )


async def _not_openenv(client: "GenericEnvClient", place: Place, where: str) -> str:
    """Why the server's WebSocket does not speak OpenEnv; empty if it does.

    Asking for the state changes nothing. Other applications answer without `data`, where OpenEnv has it.
    """
    try:
        state = await place.ask(client.state, client.disconnect)
    except EnvError:
        raise
    except TimeoutError as error:
        raise failure(error, where) from error
    except Exception as error:  # OpenEnv raises what its transport raises
        return "" if _is_frame(error) else f"its WebSocket at /ws: {error}"
    return "" if state else "its WebSocket at /ws has another protocol"


class RemoteSession:
    """One episode at a time over one WebSocket; its methods are described by `Session`."""

    def __init__(
        self, client: "GenericEnvClient", place: Place, where: str, form: ActionForm, view: View
    ) -> None:
        self.form, self.view, self._client, self._place = form, view, client, place
        self._where = where

    async def reset(self, seed: int, arguments: Mapping[str, Any]) -> Observed:
        """Start a new episode."""
        client = self._client
        try:
            result = await self._place.ask(lambda: client.reset(seed=seed, **arguments), client.disconnect)
        except EnvError:
            raise
        except Exception as error:  # OpenEnv raises what its transport raises
            raise failure(error, self._where) from error
        return self._seen(result)

    async def step(self, action: Values) -> Observed:
        """Send an action."""
        socket = self._socket
        try:
            result = await self._client.step(action)
        except Exception as error:
            if self._socket is socket and _is_frame(error):
                why = str(error).removeprefix(_ERROR)
                # OpenEnv's server validates an action before the environment gets it.
                raise refused(why, ActionError if "VALIDATION_ERROR" in why else StepError) from error
            raise failure(error, self._where) from error
        self._check_connection(socket)
        return self._seen(result)

    async def state(self) -> Mapping[str, Any]:
        """The environment's state, from the server."""
        socket = self._socket
        try:
            state: Mapping[str, Any] = await self._client.state()
        except Exception as error:
            raise failure(error, self._where) from error
        self._check_connection(socket)
        return state

    async def grade(self) -> Mapping[str, Any]:
        """OpenEnv's protocol has no grader, and the server's HTTP does not know this session."""
        raise no_grader("OpenEnv's protocol has none", self._where)

    async def renew(self) -> None:
        """Close the WebSocket; the next reset opens another."""
        self._place.close()
        await self._client.disconnect()

    @property
    def _socket(self) -> object:
        return getattr(self._client, "_ws", None)

    def _check_connection(self, socket: object) -> None:
        """The client reconnects silently to a new session, which was not reset."""
        if self._socket is not socket:
            raise failure(ConnectionError("the connection was lost during the episode"), self._where)

    def _seen(self, result: "StepResult[dict[str, Any]]") -> Observed:
        answer = {"observation": result.observation, "reward": result.reward, "done": result.done}
        return self.view.observed(*result_of({**answer, "metadata": result.metadata}))


def _is_frame(error: Exception) -> bool:
    """Whether OpenEnv's client raised this for an error frame of the server."""
    return isinstance(error, RuntimeError) and str(error).startswith(_ERROR)
