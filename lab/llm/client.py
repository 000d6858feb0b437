"""The Endpoint: one model behind an OpenAI-compatible API, hosted or embedded.

It owns the client and the request's exact form. Parsing answers is `lab.llm.response`'s; errors are
`lab.llm.failures`'s.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from lab.addresses import read_within, shown_url
from lab.errors import CallError, ConfigError, EndpointError, LabError, OutageError, RequestError
from lab.llm.failures import no_such_model, told, too_slow
from lab.llm.response import MOST_BYTES, Answer, read_answer
from lab.llm.sampling import SamplingParams
from lab.llm.throttle import Patience, Throttle

if TYPE_CHECKING:
    import httpx2
    import openai

MODELS_SHOWN, MODELS_TIMEOUT_S = 10, 10.0
"""Models listed in the error for an unknown model, and the timeout of asking for them, in seconds."""

OPENAI = "api.openai.com"
"""The host to which `OPENAI_ORG_ID` and `OPENAI_PROJECT_ID` apply."""

MOST_ERROR_BYTES = 64_000
"""Maximum bytes read of the body of an error or a redirect."""

NEUTRAL = {"top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "stop": ()}
"""The neutral value of each setting, which need not be sent."""

SHORTEST_KEY = 8
"""Minimum length of a real key: placeholders such as `none` are words."""


@dataclass(frozen=True)
class Message:
    """One chat message."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Completion:
    """The model's answer to one call, and what it cost.

    Attributes:
        text: The answer, unchanged; empty if there was none.
        prompt_tokens, completion_tokens: Tokens as the endpoint counts them; 0 if it does not.
        latency_s: Seconds from request to answer, including failed attempts and waits.
        attempts: Number of attempts.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    latency_s: float
    attempts: int = 1


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
    """

    base_url: str
    model: str
    api_key: str = field(repr=False)
    patience: Patience = field(default_factory=Patience)


class Endpoint:
    """Makes the calls. Use it as an async context manager, because it holds open connections."""

    def __init__(self, config: EndpointConfig) -> None:
        import openai

        _refuse_socks(config.base_url)
        self.config, self.throttle = config, Throttle(config.patience)
        self._openai, self._takes_schema = openai, True
        address, credentials = _split_credentials(config.base_url)
        self._client = openai.AsyncOpenAI(
            base_url=address,
            api_key=config.api_key,
            timeout=config.patience.timeout_s,
            max_retries=0,  # attempts are `lab.llm.throttle`'s
            # The client's own default looks at every open connection for each call.
            http_client=openai.DefaultAioHttpClient(auth=credentials, event_hooks={"response": [_cut_error]}),
            default_headers={"Accept-Encoding": "identity"},  # a small body may unpack to gigabytes
        )
        if urlsplit(address).hostname != OPENAI:  # the client takes them from the environment
            self._client.organization = self._client.project = None

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
        started = time.perf_counter()
        done = await self.throttle.make(lambda: self._attempt(messages, sampling, schema), _tokens)
        answer, latency_s = done.answer, time.perf_counter() - started
        tokens = (answer.prompt_tokens, answer.completion_tokens)
        return Completion(answer.text, answer.finish_reason, *tokens, latency_s, done.attempts)

    async def _attempt(self, messages: Sequence[Message], sampling: SamplingParams, schema: str) -> Answer:
        try:
            if not schema or not self._takes_schema:
                return await self._answer(messages, sampling)
            return await self._answer_in_form(messages, sampling, schema)
        except RecursionError:
            why = "its error is nested too deeply"
            raise OutageError("The endpoint failed.", where=self.shown_url, why=why) from None
        except LabError as error:
            if len(self.config.api_key) >= SHORTEST_KEY:  # an endpoint's own words may repeat it
                error.why = error.why.replace(self.config.api_key, "[key]")
            raise error from None

    async def _answer_in_form(
        self, messages: Sequence[Message], sampling: SamplingParams, schema: str
    ) -> Answer:
        """Send the schema; if the endpoint accepts the call only without it, omit it from then on."""
        try:
            return await self._answer(messages, sampling, schema)
        except RequestError as error:
            if error.answered is not None:  # its content filter withheld the answer; it accepted the schema
                raise
            answer = await self._answer(messages, sampling)
            self._takes_schema = False
            return answer

    async def _answer(
        self, messages: Sequence[Message], sampling: SamplingParams, schema: str = ""
    ) -> Answer:
        try:
            async with asyncio.timeout(self.config.patience.timeout_s):
                body = await self._request(messages, sampling, schema)
        except TimeoutError:
            raise too_slow(self.shown_url) from None
        except LabError:
            raise
        except Exception as error:  # the client lets through what the transport below it raises
            if isinstance(error, self._openai.APIStatusError) and no_such_model(error):
                raise await self._no_such_model(error) from error
            raise told(error, self.shown_url) from error
        return read_answer(body, self.shown_url)

    @property
    def shown_url(self) -> str:
        """The base URL without credentials or query, fit for messages and files."""
        return shown_url(self.config.base_url)

    async def _request(self, messages: Sequence[Message], sampling: SamplingParams, schema: str) -> bytes:
        # The client copies `extra_body` unchanged, but walks over everything else: a sixth of a call's CPU.
        answering = self._client.chat.completions.with_streaming_response.create(
            model=self.config.model, messages=[], extra_body=_asked(messages, sampling, schema)
        )
        async with answering as response:
            body = await read_within(response.iter_bytes(), MOST_BYTES)
        if body is None:
            why = f"more than {MOST_BYTES:,} bytes"
            error = CallError("The model's answer is too long.", where=self.shown_url, why=why)
            error.answered = (0, 0)
            raise error
        return body

    async def _no_such_model(self, error: "openai.APIStatusError") -> EndpointError:
        """The error for an unknown model, with the models that exist."""
        do = f"set MODEL_NAME to a model that {self.shown_url}/models lists"
        try:
            async with asyncio.timeout(MODELS_TIMEOUT_S):
                async with self._client.models.with_streaming_response.list() as response:
                    body = await read_within(response.iter_bytes(), MOST_BYTES)
            names = [str(model["id"]) for model in json.loads(body or b"")["data"][:MODELS_SHOWN]]
            do = f"set MODEL_NAME to one of: {', '.join(names)}" if names else do
        except Exception as none_listed:  # it is only for the message
            do = f"{do} ({type(none_listed).__name__})"
        what = f"The endpoint does not have {self.config.model!r}."
        return EndpointError(what, where=self.shown_url, why=str(error), do=do)


async def _cut_error(response: "httpx2.Response") -> None:
    """Read an error's body up to a limit: the client would read and unpack all of it."""
    if response.is_success:
        return
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) >= MOST_ERROR_BYTES:
            break
    await response.aclose()
    response._content = bytes(body[:MOST_ERROR_BYTES])  # there is no public way to set it


def _asked(messages: Sequence[Message], sampling: SamplingParams, schema: str) -> dict[str, object]:
    """A call's body, without the model and neutral settings: not all endpoints know them."""
    asked: dict[str, object] = {"messages": [vars(message) for message in messages]}
    asked |= {name: value for name, value in vars(sampling).items() if value != NEUTRAL.get(name)}
    if schema:
        json_schema = {"name": "action", "schema": json.loads(schema)}
        asked["response_format"] = {"type": "json_schema", "json_schema": json_schema}
    return asked


def _tokens(answer: Answer) -> int:
    return answer.prompt_tokens + answer.completion_tokens


def _refuse_socks(url: str) -> None:
    """Refuse a SOCKS proxy for `url`, which the client would treat as an HTTP proxy.

    Raises:
        ConfigError: A SOCKS proxy is set.
    """
    parts, proxies = urlsplit(url), getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all", "")
    if proxy.startswith("socks") and not proxy_bypass(parts.hostname or ""):
        where, do = (
            f"{parts.scheme.upper()}_PROXY or ALL_PROXY",
            "name an HTTP proxy, or the host in NO_PROXY",
        )
        raise ConfigError("Calls cannot go through a SOCKS proxy.", where=where, do=do)


def _split_credentials(url: str) -> tuple[str, tuple[str, str] | None]:
    """The address, and the user and password in it, which are sent instead of the key."""
    parts = urlsplit(url)
    address = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return address, (
        unquote(parts.username or ""),
        unquote(parts.password or ""),
    ) if "@" in parts.netloc else None
