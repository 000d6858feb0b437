"""An environment's own HTTP application: `/reset` and `/step`, for servers without OpenEnv's WebSocket."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from typing import Any

from lab.addresses import shown_url
from lab.environments.action import ActionError, ActionForm, refused
from lab.environments.answer import Values
from lab.environments.failures import failed, no_grader, refused_by
from lab.environments.http_form import HttpForm, Operation
from lab.environments.observation import Observed, View, result_of, unwrapped
from lab.environments.task_list import reset_arguments
from lab.environments.wire import Reply, Wire
from lab.errors import EnvError

_NOT_OURS = (401, 403, 404, 405, 408, 429)
"""HTTP statuses of a step that do not depend on the action."""

_TOO_MANY = 429
"""HTTP status of a request beyond the application's rate limit, which has not reached the environment."""

_WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Seconds before each repetition of such a request: a minute in all, as most limits are per minute."""


class HttpServer:
    """An environment's own HTTP application.

    Args:
        wire: Opens a connection to it.
        say: Called once, when episodes have to be played one at a time.
    """

    def __init__(
        self,
        wire: Callable[[], Wire],
        http: HttpForm,
        form: ActionForm,
        view: View,
        say: Callable[[str], None],
    ) -> None:
        self._wire, self._http, self._form, self._view, self._say = wire, http, form, view, say
        self._alone = None if http.concurrent else asyncio.Lock()
        self._said = False

    @asynccontextmanager
    async def session(self) -> AsyncIterator["HttpSession"]:
        """Open a session; one at a time unless the application identifies episodes."""
        if self._alone and self._alone.locked() and not self._said:
            self._said = True
            self._say("The environment's HTTP names no sessions, so its episodes are played one at a time.")
        async with self._alone or nullcontext(), self._wire() as wire:
            yield HttpSession(wire, self._http, self._form, self._view)


class HttpSession:
    """One episode at a time; its methods are described by `Session`."""

    def __init__(self, wire: Wire, http: HttpForm, form: ActionForm, view: View) -> None:
        self.form, self.view, self._wire, self._http = form, view, wire, http
        self._kept: dict[str, Any] = {}

    async def reset(self, seed: int, arguments: Mapping[str, Any]) -> Observed:
        """Start a new episode; an application whose reset names no seed gets none."""
        reset, key = self._http.reset, self._http.session_key
        given = reset_arguments(seed, arguments, reset.named, takes_any=reset.open)
        own = {key: os.urandom(16).hex()} if key in reset.named else {}
        do = "set what its reset requires in [[tasks]], as reset = { NAME = VALUE }"
        try:
            reply = await self._send(reset, {**own, **given})
        except ValueError as error:
            what = "The environment cannot be reset."
            raise EnvError(what, where=self._where, why=str(error), do=do) from None
        if reply.status == _TOO_MANY:
            do = "raise the rate limit of its application"
        body = self._body(reply, do)
        if told := _told_error(body):
            raise failed(told, self._where)
        answered = _given(key, body)
        name = own.get(key) if answered is None else answered
        if name is None and key in self._http.step.required:
            raise failed(f"{self._http.step.path} requires {key}, and reset answers without one", self._where)
        chosen = {one: given.get(one, reset.named[one].get("default")) for one in self._http.shared}
        self._kept = {one: value for one, value in {**chosen, key: name}.items() if value is not None}
        return self.view.observed(*result_of(body))

    async def step(self, action: Values) -> Observed:
        """Send an action."""
        call, values = self._http.step, {"action": action} if self._http.wrapped else action
        kept = self._kept_for(call)
        try:
            reply = await self._send(call, {**values, **kept})
        except ValueError as error:
            raise refused(str(error), ActionError) from None
        if reply.status >= 500 and reply.status not in (502, 503, 504):
            raise refused(reply.text)
        by_path = reply.status == 404 and not call.within <= kept.keys()  # the path holds the action
        if 400 <= reply.status < 500 and (by_path or reply.status not in _NOT_OURS):
            raise refused(reply.text, ActionError)
        body = self._body(reply)
        if told := _told_error(body):
            raise refused(told, ActionError)
        return self.view.observed(*result_of(body))

    async def state(self) -> Mapping[str, Any]:
        """The environment's state, from the application's `/state`."""
        call, what = self._http.state, "The environment's state cannot be read."
        if call is None:
            raise EnvError(what, where=self._where, why="/openapi.json names no /state")
        reply = await self._asked(call, what)
        self._raise_refusal(reply)
        state = reply.json()
        if not reply.found or not isinstance(state, dict):
            raise EnvError(what, where=f"{self._where}{call.path}", why=reply.text)
        return state

    async def grade(self) -> Mapping[str, Any]:
        """The answer of the application's `/grader` or `/grade`; its fields' names if it refuses."""
        call = self._http.grader
        if call is None:
            raise no_grader("/openapi.json names no /grader or /grade that needs nothing else", self._where)
        reply = await self._asked(call, "The environment's grader cannot be called.")
        if not reply.found:
            return dict.fromkeys(call.answer.get("properties", {}))
        told = reply.json()
        return told if isinstance(told, dict) else {"score": told}

    async def renew(self) -> None:
        """Do nothing: the next reset replaces everything that is kept."""

    async def _asked(self, call: Operation, what: str) -> Reply:
        """The reply to a call about the episode; `what` is the error if its path has an unknown argument."""
        try:
            return await self._send(call, self._kept_for(call))
        except ValueError as error:
            raise EnvError(what, where=f"{self._where}{call.path}", why=str(error)) from None

    def _kept_for(self, call: Operation) -> dict[str, Any]:
        return {name: value for name, value in self._kept.items() if name in call.named}

    @property
    def _where(self) -> str:
        return shown_url(self._wire.url)

    async def _send(self, call: Operation, values: Mapping[str, Any]) -> Reply:
        request = call.request(values)
        for wait_s in (*_WAITS_S, None):
            reply = await self._wire.ask(
                request.method, request.path, request.body, request.query, request.headers
            )
            if reply.status != _TOO_MANY or wait_s is None:
                break
            await asyncio.sleep(wait_s)
        return reply

    def _raise_refusal(self, reply: Reply) -> None:
        if error := refused_by(reply.status, reply.text, self._where):
            raise error

    def _body(self, reply: Reply, do: str = "") -> object:
        """The JSON in a reply to reset or step.

        Args:
            do: Advice of the error for a reply that has none.
        """
        self._raise_refusal(reply)
        if not reply.found:
            error = failed(reply.text, self._where)
            error.do = do or error.do
            raise error
        try:
            body: object = reply.read()
        except (ValueError, RecursionError) as error:
            raise failed(f"its answer is not JSON: {reply.text}", self._where) from error
        return body


def _told_error(body: object) -> str:
    """The error that an application answers as if all were well; empty for a result."""
    if not isinstance(body, dict) or not set(body) <= {"detail", "error", "message", "status"}:
        return ""
    return " ".join(str(told) for told in body.values()) or "its answer is empty"


def _given(key: str, body: object) -> str | int | None:
    """The episode's identifier in the answer to its reset."""
    body = unwrapped(body) if isinstance(body, dict) else {}
    places = [body, *(body.get(name) for name in ("info", "observation"))]
    found = (place.get(key) for place in places if isinstance(place, dict))
    return next((one for one in found if type(one) in (str, int)), None)
