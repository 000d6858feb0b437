"""Failed calls: translates a client exception into a LabError, by what has to be done about it.

It owns the classification; the retries and waits that follow are `lab.llm.throttle`'s.
"""

import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from math import inf, nan
from typing import TYPE_CHECKING

from lab.errors import (
    BusyError,
    CallError,
    EndpointError,
    LabError,
    NoKeyError,
    OutageError,
    RequestError,
    SlowError,
    UnreachableError,
)
from lab.llm.refusal import Refusal

if TYPE_CHECKING:
    import openai

NO_KEY, NOT_FOUND = (401, 403), (404, 405)
BUSY = (429, 503, 529)
"""Too many requests, unavailable, and the "overloaded" of some hosts."""

REFUSED = (400, 413, 422)
TOO_SLOW = (408, 504)
_UNKNOWN_MODEL = (
    r"model_not_found|model_not_supported|deployment_not_found|unknown model|not supported by any provider"
    r"|\bmodel\b.{0,100}?(?:not found|not exist|is not available|not loaded|invalid model)|no such model"
    r"|invalid model (?:name|id)\b"
)
"""Words of endpoints about a model that they do not have."""

_WRONG_KEY = (
    r"api.?key (?:is )?(?:not valid|invalid|expired)|invalid.{0,20}api.?key|api_key_invalid|no_db_connection"
)
"""Words of endpoints that answer 400 to a wrong key; LiteLLM looks for an unknown one in a database."""

_TOO_LONG = (
    r"context_length_exceeded|context.?(?:length|window|size)|too many tokens"
    r"|tokens?\b.{0,40}must be (?:at most|less|below|<)"
)
_FILTERED = (
    r"content.?(?:filter|policy)|content management policy|moderat|flagged|safety (?:system|policy|filter)"
)
_USED_UP = r"insufficient_quota|insufficient (?:funds|credits?|balance)|credit balance is too low"
_LATER = r"(?:again|retry|wait|reset).{0,20}?(\d+(?:\.\d+)?)\s*(ms|s|sec|m)?\b"
"""A wait in words, and its unit."""

LONGEST_SAID_S = 120.0
"""Longest wait that is believed without a header, in seconds."""


@dataclass(frozen=True)
class Settings:
    """What a user sets to choose an endpoint, in the words of errors: its key, its model, and its URL."""

    key: str = "HF_TOKEN (or API_KEY)"
    model: str = "MODEL_NAME"
    url: str = "API_BASE_URL"


USUAL = Settings()


def told(error: Exception, where: str, settings: Settings) -> EndpointError | CallError:
    """Translate an exception of the client, or of its transport, into a LabError."""
    import openai

    match error:
        case openai.APIConnectionError():
            return _connection(error, where, settings)
        case openai.OpenAIError():
            return CallError("The model call failed.", where=where, why=str(error))
        case UnicodeError() if "idna" in str(error):
            return _no_such_host(str(error), where, settings)
        case _ if "Timeout" in type(error).__name__:
            return too_slow(where)
        case _:
            return OutageError("The connection to the endpoint was lost.", where=where, why=str(error))


def no_such_model(refusal: Refusal) -> bool:
    """Whether the endpoint says that it does not have the model."""
    return refusal.status in (*REFUSED, *NOT_FOUND) and bool(re.search(_UNKNOWN_MODEL, refusal.words))


def is_clear(error: LabError) -> bool:
    """Whether a refusal is about something else than the form of the request."""
    return not isinstance(error, RequestError | OutageError) or error.what in (_LONG, _FILTER)


def too_slow(where: str, why: str = "") -> SlowError:
    """The error of an attempt that timed out."""
    return SlowError("The model did not answer in time.", where=where, why=why)


def retry_after_s(headers: Mapping[str, str], now_s: float) -> float:
    """Seconds to wait by the headers, 0 without one.

    `Retry-After` (RFC 9110, section 10.2.3) and `retry-after-ms` take precedence; else the limits of which
    nothing is left are waited for, by OpenAI's `x-ratelimit-reset-*`.

    Args:
        now_s: Current time in seconds since 1970: a header may contain a date.
    """
    if text := headers.get("retry-after-ms", "").strip():
        return _bounded(_number(text) / 1000)
    text = headers.get("retry-after", "").strip()
    if not text:
        return max((_reset_s(headers, name, now_s) for name in headers), default=0.0)
    if (wait_s := _number(text)) == wait_s:
        return _bounded(wait_s)
    try:
        return _bounded(parsedate_to_datetime(text).timestamp() - now_s)
    except (ValueError, OverflowError):
        return 0.0


_RESET = "x-ratelimit-reset"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _reset_s(headers: Mapping[str, str], name: str, now_s: float) -> float:
    """The wait by one header of a limit; 0 if something is left of it."""
    left = headers.get(name.lower().replace("-reset", "-remaining"), "0").strip()
    if not name.lower().startswith(_RESET) or (_number(left) > 0):
        return 0.0
    text = headers[name].strip()
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhd])", text)
    if parts and "".join(map("".join, parts)) == text:
        return _bounded(sum(float(number) * _UNITS[unit] for number, unit in parts))
    wait_s = _number(text)
    if wait_s > 1e12:  # milliseconds since 1970
        wait_s /= 1000
    return _bounded(wait_s - now_s if wait_s > 1e9 else wait_s)


def _number(text: str) -> float:
    """The number in a text; NaN if it is not one."""
    try:
        return float(text)
    except ValueError:
        return nan


def _bounded(wait_s: float) -> float:
    return wait_s if 0 < wait_s < inf else 0.0


def _said_s(words: str) -> float:
    """Seconds to wait by the words of an error, such as "try again in 2s"; 0 without any."""
    found = re.search(_LATER, words)
    return min(float(found[1]) * _UNITS.get(found[2] or "s", 1.0), LONGEST_SAID_S) if found else 0.0


_LONG = "Prompt and answer do not fit into the model's context."
_FILTER = "The endpoint's content filter refused the prompt."


def refused(
    refusal: Refusal, headers: Mapping[str, str], where: str, settings: Settings, *, answered: bool
) -> EndpointError | CallError:
    """The error for an HTTP error.

    Args:
        answered: Whether the endpoint has answered a call before: the key is right then.
    """
    status, why, words = refusal.status, refusal.message or f"status {refusal.status}", refusal.words
    wait_s = retry_after_s(headers, time.time()) or _said_s(words)
    if status in (*NO_KEY, *REFUSED) and re.search(_FILTERED, words):
        return RequestError(_FILTER, where=where, why=why)
    if (status in NO_KEY or (status == 400 and re.search(_WRONG_KEY, words))) and not answered:
        do = f"set {settings.key} to a key for this endpoint"
        return NoKeyError("The endpoint refused the key.", where=where, why=why, do=do)
    if status == 402 or (status == 429 and re.search(_USED_UP, words) and not wait_s):
        do = "add credit, then run the same command to resume"
        return EndpointError("The endpoint's quota is used up.", where=where, why=why, do=do)
    if status == 401:
        return OutageError("The endpoint refused a key that it accepted before.", where=where, why=why)
    if status in TOO_SLOW:
        return too_slow(where, why)
    if status in BUSY:
        busy = BusyError("The endpoint is busy.", where=where, why=why)
        busy.retry_after_s = wait_s
        return busy
    if status < 500:
        if status in REFUSED and re.search(_TOO_LONG, words):
            do = "shorten the template, or lower history or max_tokens"
            return RequestError(_LONG, where=where, why=why, do=do)
        return RequestError("The endpoint refused the request.", where=where, why=why)
    return OutageError("The endpoint failed.", where=where, why=why)


def _connection(
    error: "openai.APIConnectionError", where: str, settings: Settings
) -> EndpointError | CallError:
    import aiohttp

    do = f"check {settings.url}, and that the server is up"
    causes = list(_causes(error))
    why = next((str(cause) for cause in causes if str(cause)), str(error))
    connecting = any(isinstance(cause, aiohttp.ClientConnectorError) for cause in causes)
    for cause in causes:
        match cause:
            case socket.gaierror():
                return _no_such_host(why, where, settings)
            case TimeoutError():
                return too_slow(where)
            case ConnectionRefusedError():
                what = "The endpoint cannot be reached: no server is listening."
                return UnreachableError(what, where=where, why=str(cause), do=do)
            case ssl.SSLCertVerificationError():
                trust = "use the host name in the certificate, or add its authority to SSL_CERT_FILE"
                return EndpointError(
                    "The endpoint's certificate is not trusted.", where=where, why=why, do=trust
                )
            case ConnectionError() | aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError() if (
                not connecting
            ):
                return OutageError("The connection to the endpoint was lost.", where=where, why=why)
            case ssl.SSLError():
                return EndpointError("The endpoint does not speak TLS.", where=where, why=why, do=do)
    return UnreachableError("The endpoint cannot be reached.", where=where, why=why, do=do)


def _no_such_host(why: str, where: str, settings: Settings) -> UnreachableError:
    what, do = "The endpoint's host name cannot be resolved.", f"check {settings.url}"
    return UnreachableError(what, where=where, why=why, do=do)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The chain of causes of an exception, nearest first."""
    cause = error.__cause__ or error.__context__
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
