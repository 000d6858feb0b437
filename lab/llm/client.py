"""The Endpoint: one model behind an OpenAI-compatible API, hosted or embedded.

It owns what becomes of an answer or an error. The connection is `lab.llm.transport`'s; the form of requests
`lab.llm.request`'s, and what is learnt of it `lab.llm.learning`'s; parsing answers is `lab.llm.response`'s.
"""

import asyncio
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol, cast
from urllib.parse import urlsplit

from lab.addresses import read_within, shown_url
from lab.errors import BusyError, CallError, EndpointError, LabError, RequestError, SlowError
from lab.llm.dialect import OPENAI, Dialect
from lab.llm.failures import NOT_FOUND, USUAL, Settings, is_clear, no_such_model, refused, told, too_slow
from lab.llm.learning import Learning, RefusedError
from lab.llm.refusal import Refusal, read_refusal
from lab.llm.request import Message as Message
from lab.llm.request import Request, estimate
from lab.llm.response import MOST_BYTES, Answer, read_answer, reported_usage
from lab.llm.response import Completion as Completion
from lab.llm.sampling import SamplingParams
from lab.llm.throttle import Patience, Throttle
from lab.llm.transport import open_client

if TYPE_CHECKING:
    import openai

MODELS_SHOWN, MODELS_TIMEOUT_S = 10, 10.0
"""Models listed in the error for an unknown model, and the timeout of asking for them, in seconds."""

SHORTEST_KEY = 8
"""Minimum length of a real key: placeholders such as `none` are words."""


class Model(Protocol):
    """Anything that answers chats: an endpoint, or a wrapper that counts or records its calls."""

    async def complete(
        self, messages: Sequence[Message], sampling: SamplingParams, schema: str = ""
    ) -> Completion:
        """Ask the model once; see `Endpoint.complete`."""
        ...


@dataclass(frozen=True)
class EndpointConfig:
    """Where the model is and how it is called.

    Attributes:
        base_url: Root URL of the API, including `/v1`.
        patience: Limits on attempts and time.
        dialect: What its requests may hold, as far as known.
        headers: Headers of each request, besides the key's.
        known: Features that it is known to accept; see `lab.llm.request.Request.features`.
        settings: What the user sets to choose it.
    """

    base_url: str
    model: str
    api_key: str = field(repr=False)
    patience: Patience = field(default_factory=Patience)
    dialect: Dialect = OPENAI
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    known: frozenset[str] = frozenset()
    settings: Settings = USUAL


class Endpoint:
    """Makes the calls. Use it as an async context manager, because it holds open connections.

    Attributes:
        learning: What the endpoint accepts; see `lab.llm.learning`.
    """

    def __init__(self, config: EndpointConfig) -> None:
        import openai

        self.config, self.throttle = config, Throttle(config.patience)
        self.learning = Learning(config.dialect, config.known)
        self._openai = openai
        self._client = open_client(config.base_url, config.api_key, config.headers)
        self._clients = {"": self._client}

    async def __aenter__(self) -> "Endpoint":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._client.close()

    async def complete(
        self, messages: Sequence[Message], sampling: SamplingParams, schema: str = ""
    ) -> Completion:
        """Ask the model once, with retries.

        Args:
            schema: A JSON Schema for the answer, sent to endpoints that accept one.

        Raises:
            EndpointError: The key, the model or the host is wrong, so no call can succeed.
            CallError: Every attempt failed.
        """
        started, request = time.perf_counter(), Request(messages, sampling, schema)
        answer, attempts = await self.throttle.make(partial(self._attempt, request), _tokens)
        return replace(answer, latency_s=time.perf_counter() - started, attempts=attempts)

    async def _attempt(self, request: Request, timeout_s: float) -> Completion:
        try:
            return _counted(request, await self.learning.ask(request, partial(self._send, timeout_s)))
        except LabError as error:
            error.why = self._without_keys(error.why)
            if isinstance(error, CallError) and error.answered == (0, 0):
                error.answered = (request.estimated_tokens, 0)
            raise error from None

    async def _send(self, timeout_s: float, request: Request, dialect: Dialect) -> Answer:
        """Send a request once.

        Raises:
            RefusedError: The endpoint refused it; perhaps not a plainer one.
            LabError: It failed otherwise.
        """
        try:
            async with asyncio.timeout(timeout_s):
                body = await self._request(request, dialect, timeout_s)
        except TimeoutError:
            can = f"[model] timeout_s = {self.config.patience.timeout_s:g} can be raised"
            raise too_slow(self.shown_url, f"no answer within {timeout_s:.3g} s; {can}") from None
        except LabError:
            raise
        except self._openai.APIStatusError as error:
            raise await self._refused(error, dialect) from error
        except Exception as error:  # the client lets through what the transport below it raises
            raise told(error, self.shown_url, self.config.settings) from error
        return read_answer(body, self.shown_url, dialect)

    @property
    def shown_url(self) -> str:
        """The base URL without credentials or query, fit for messages and files."""
        return shown_url(self.config.base_url).rstrip("/") + self.learning.dialect.path

    async def _request(self, request: Request, dialect: Dialect, timeout_s: float) -> bytes:
        # The client copies `extra_body` unchanged, but walks over everything else: a sixth of a call's CPU.
        answering = self._at(dialect.path).chat.completions.with_streaming_response.create(
            model=self.config.model, messages=[], extra_body=request.body(dialect), timeout=timeout_s
        )
        answered = False
        try:
            async with answering as response:
                answered = True
                body = await read_within(response.iter_bytes(), MOST_BYTES)
        except Exception as error:
            if not answered or isinstance(error, self._openai.APIStatusError):
                raise
            lost = told(error, self.shown_url, self.config.settings)
            if isinstance(lost, CallError):  # a model's answer was on its way, and is billed
                lost.answered = (0, 0)
            raise lost from error
        if body is None:
            why = f"more than {MOST_BYTES:,} bytes"
            long = CallError("The model's answer is too long.", where=self.shown_url, why=why)
            long.answered = (0, 0)
            raise long
        return body

    def _at(self, path: str) -> "openai.AsyncOpenAI":
        """The client for the base URL with `path` added."""
        if path not in self._clients:
            base_url = str(self._client.base_url).rstrip("/") + path
            self._clients[path] = self._client.with_options(base_url=base_url)
        return self._clients[path]

    async def _refused(self, error: "openai.APIStatusError", dialect: Dialect) -> RefusedError | LabError:
        said = read_refusal(error.status_code, error.response.content)
        refusal = replace(said, message=self._without_keys(said.message))
        if refusal.status in NOT_FOUND or no_such_model(refusal):
            return await self._not_found(refusal, dialect)
        headers = cast("Mapping[str, str]", error.response.headers)
        place = (self.shown_url, self.config.settings)
        failed = refused(refusal, headers, *place, answered=self.throttle.answered)
        if isinstance(failed, CallError):
            failed.answered = reported_usage(error.response.content)
        if isinstance(failed, BusyError | SlowError) or not isinstance(failed, CallError):
            return failed
        return RefusedError(failed, refusal, is_clear=is_clear(failed))

    def _without_keys(self, text: str) -> str:
        """An endpoint's own words, which may repeat what it was sent."""
        for secret in (self.config.api_key, *(value for _, value in self.config.headers)):
            if len(secret) >= SHORTEST_KEY:
                text = text.replace(secret, "[key]")
        return text

    async def _not_found(self, refusal: Refusal, dialect: Dialect) -> RefusedError | LabError:
        """The error for an unknown model, with the models that exist; or for a wrong address."""
        where, name = self.shown_url, self.config.settings.model
        do = f"set {name} to a model that {where}/models lists"
        try:
            async with asyncio.timeout(MODELS_TIMEOUT_S):
                async with self._at(dialect.path).models.with_streaming_response.list() as response:
                    body = await read_within(response.iter_bytes(), MOST_BYTES)
            names = [str(model["id"]) for model in json.loads(body or b"")["data"]]
            do = f"set {name} to one of: {', '.join(names[:MODELS_SHOWN])}" if names else do
            if self.config.model in names and not no_such_model(refusal):
                what, address = "The endpoint refused the request.", ""
                if not self.throttle.answered:
                    what = f"The endpoint lists {self.config.model!r}, but has no chat completions."
                    address = f"set {self.config.settings.url} to the root of an OpenAI-compatible API"
                error = RequestError(what, where=where, why=refusal.message, do=address)
                return RefusedError(error, refusal, is_clear=False)
        except Exception as none_listed:
            if not no_such_model(refusal) and not self.throttle.answered:
                return self._no_api(refusal, dialect)
            do = f"{do} ({type(none_listed).__name__})"
        what = f"The endpoint does not have {self.config.model!r}."
        return EndpointError(what, where=where, why=refusal.message, do=do)

    def _no_api(self, refusal: Refusal, dialect: Dialect) -> RefusedError:
        """The error for an address at which there is no API; with `/v1` it may be right."""
        do = f"set {self.config.settings.url} to the root of the API, such as https://host/v1"
        what = "This is not the address of an OpenAI-compatible API."
        error = EndpointError(what, where=self.shown_url, why=str(refusal), do=do)
        has_version = re.search(r"/v\d", urlsplit(self.config.base_url).path) or dialect.path
        elsewhere = None if has_version else replace(dialect, path="/v1")
        return RefusedError(error, refusal, is_clear=True, elsewhere=elsewhere)


def _counted(request: Request, answer: Answer) -> Completion:
    """The answer with its tokens, estimated if the endpoint does not report them."""
    prompt, completion, thinking = answer.prompt_tokens, answer.completion_tokens, answer.thinking_tokens
    said = estimate(answer.text) + estimate(answer.thinking)
    uncounted = not prompt or (not completion and said > 0)
    if answer.thinking and not thinking:
        thinking = min(estimate(answer.thinking), completion or said)
    prompt, completion = prompt or request.estimated_tokens, completion or said
    counted = Completion(answer.text, answer.finish_reason, prompt, completion, estimated=uncounted)
    return replace(counted, thinking=answer.thinking, thinking_tokens=thinking)


def _tokens(answer: Completion) -> int:
    return answer.prompt_tokens + answer.completion_tokens
