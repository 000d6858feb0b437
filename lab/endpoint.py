"""The Endpoint: one model behind an OpenAI-compatible API, hosted or embedded.

It owns the client, the request's exact form, and the telling apart of what can go wrong with a call.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol
from urllib.parse import urlsplit, urlunsplit

from lab.candidate import SamplingParams
from lab.errors import CallError, EndpointError

if TYPE_CHECKING:
    import openai
    from openai.types.chat import ChatCompletion, ChatCompletionMessageParam


@dataclass(frozen=True)
class Message:
    """One chat message."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Completion:
    """The model's answer to one call, and what it cost.

    Attributes:
        text: the answer as the model gave it; empty where it gave none.
        prompt_tokens, completion_tokens: as the endpoint counts them; 0 where it does not.
        latency_s: seconds from request to answer, the client's retries included.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    latency_s: float


class Model(Protocol):
    """What can be asked: an endpoint, or one whose calls are counted or recorded on the way."""

    async def complete(self, messages: Sequence[Message], sampling: SamplingParams) -> Completion:
        """Ask the model once; see `Endpoint.complete`."""
        ...


@dataclass(frozen=True)
class EndpointConfig:
    """Where the model is and how it is called.

    Attributes:
        base_url: the API's root, up to and with `/v1`.
        timeout_s: seconds that one attempt may take.
        max_retries: attempts after the first, by the client, with its backoff.
    """

    base_url: str
    model: str
    api_key: str = field(repr=False)
    timeout_s: float = 120.0
    max_retries: int = 2


class Endpoint:
    """Makes the calls. Use it as an async context manager: it holds open connections."""

    def __init__(self, config: EndpointConfig) -> None:
        import openai

        self.config = config
        self._openai = openai
        self._client = openai.AsyncOpenAI(
            base_url=config.base_url,
            api_key=config.api_key,
            timeout=config.timeout_s,
            max_retries=config.max_retries,
        )

    async def __aenter__(self) -> "Endpoint":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._client.close()

    async def complete(self, messages: Sequence[Message], sampling: SamplingParams) -> Completion:
        """Ask the model once.

        Raises:
            EndpointError: the key, the model or the host is wrong, so that no other call will do better.
            CallError: this call failed; another may do.
        """
        started = time.perf_counter()
        try:
            response = await self._request(messages, sampling)
        except self._openai.OpenAIError as error:
            raise self._told(error) from error
        except ValueError as error:
            raise CallError("The model's answer is not JSON.", where=self.shown_url, why=str(error)) from None
        return _completion(response, time.perf_counter() - started, self.shown_url)

    @property
    def shown_url(self) -> str:
        """The base URL without credentials or query, fit for messages and files."""
        return shown_url(self.config.base_url)

    async def _request(self, messages: Sequence[Message], sampling: SamplingParams) -> "ChatCompletion":
        # A setting at its neutral value is not sent: some endpoints refuse settings that they do not know.
        omit = self._openai.omit
        return await self._client.chat.completions.create(
            model=self.config.model,
            messages=[_param(message) for message in messages],
            temperature=sampling.temperature,
            max_tokens=sampling.max_tokens,
            top_p=sampling.top_p if sampling.top_p != 1.0 else omit,
            presence_penalty=sampling.presence_penalty or omit,
            frequency_penalty=sampling.frequency_penalty or omit,
            stop=list(sampling.stop) or omit,
        )

    def _told(self, error: "openai.OpenAIError") -> EndpointError | CallError:
        """What the client raised, in the lab's words."""
        where, why = self.shown_url, _reason(error)
        match error:
            case self._openai.AuthenticationError() | self._openai.PermissionDeniedError():
                do = "set HF_TOKEN (or API_KEY) to a key for this endpoint"
                return EndpointError("The endpoint refused the key.", where=where, why=why, do=do)
            case self._openai.NotFoundError():
                do = f"set MODEL_NAME to a model that {where}/models lists"
                what = f"The endpoint does not have {self.config.model!r}."
                return EndpointError(what, where=where, why=why, do=do)
            case self._openai.APITimeoutError():
                return CallError("The model did not answer in time.", where=where, why=why)
            case self._openai.APIConnectionError():
                do = "check API_BASE_URL, and that the server is up"
                return EndpointError("The endpoint cannot be reached.", where=where, why=why, do=do)
            case _:
                return CallError("The model call failed.", where=where, why=why)


def shown_url(url: str) -> str:
    """`url` without user, password, query and fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _param(message: Message) -> "ChatCompletionMessageParam":
    match message.role:
        case "system":
            return {"role": "system", "content": message.content}
        case "user":
            return {"role": "user", "content": message.content}
        case "assistant":
            return {"role": "assistant", "content": message.content}


def _completion(response: "ChatCompletion", latency_s: float, where: str) -> Completion:
    # Endpoints differ: any of these fields may be absent, whatever the client's types say.
    choices = getattr(response, "choices", None)
    if not choices:
        raise CallError("The model's answer has no choices.", where=where)
    usage = response.usage
    content = choices[0].message.content or ""
    return Completion(
        # A lone surrogate can come through JSON, and could be neither sent on nor written.
        text=content.encode("utf-8", "replace").decode("utf-8"),
        finish_reason=choices[0].finish_reason or "",
        prompt_tokens=usage.prompt_tokens if usage else 0,
        completion_tokens=usage.completion_tokens if usage else 0,
        latency_s=latency_s,
    )


def _reason(error: BaseException) -> str:
    cause = error.__cause__
    return f"{error} ({cause})" if cause is not None and str(cause) else str(error)
