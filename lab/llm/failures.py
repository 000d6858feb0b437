"""Failed calls: translates a client exception into a LabError, by what has to be done about it.

It owns the classification; the retries and waits that follow are `lab.llm.throttle`'s.
"""

import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, cast

from lab.errors import (
    BusyError,
    CallError,
    EndpointError,
    NoKeyError,
    OutageError,
    RequestError,
    SlowError,
    UnreachableError,
)

if TYPE_CHECKING:
    import openai

NO_KEY, NO_MODEL = (401, 403), 404
BUSY = (429, 503, 529)
"""Too many requests, unavailable, and the "overloaded" of some hosts."""

REFUSED = (400, 413, 422)
TOO_SLOW = (408, 504)
UNKNOWN_MODEL = ("model_not_found", "model_not_supported", "unknown model", "not supported by any provider")
"""Phrases of endpoints that answer 400 for an unknown model."""

TOO_LONG = ("context_length_exceeded", "maximum context length", "context length", "too many tokens")
FILTERED = ("content_filter", "content management policy", "content_policy")
USED_UP = ("insufficient_quota", "billing", "credit")


def told(error: Exception, where: str) -> EndpointError | CallError:
    """Translate an exception of the client, or of its transport, into a LabError."""
    import openai

    match error:
        case openai.APIStatusError():
            return _status(error, where)
        case openai.APIConnectionError():
            return _connection(error, where)
        case openai.OpenAIError():
            return CallError("The model call failed.", where=where, why=str(error))
        case UnicodeError() if "idna" in str(error):
            return _no_such_host(str(error), where)
        case _ if "Timeout" in type(error).__name__:
            return too_slow(where)
        case _:
            return OutageError("The connection to the endpoint was lost.", where=where, why=str(error))


def no_such_model(error: "openai.APIStatusError") -> bool:
    """Whether the error means that the model is unknown."""
    words = f"{error.code or ''} {error}".lower()
    return error.status_code == NO_MODEL or (error.status_code in REFUSED and _names(UNKNOWN_MODEL, words))


def too_slow(where: str) -> SlowError:
    """The error of an attempt that timed out."""
    return SlowError("The model did not answer in time.", where=where)


def retry_after_s(headers: Mapping[str, str], now_s: float) -> float:
    """Seconds to wait by the Retry-After header, 0 without one (RFC 9110, section 10.2.3).

    Args:
        now_s: Current time in seconds since 1970: the header may contain a date.
    """
    text = headers.get("retry-after", "").strip()
    if not text:
        return 0.0
    try:
        wait_s = float(text)
    except ValueError:
        try:
            wait_s = parsedate_to_datetime(text).timestamp() - now_s
        except (ValueError, OverflowError):
            return 0.0
    return wait_s if 0 < wait_s < float("inf") else 0.0


def _status(error: "openai.APIStatusError", where: str) -> EndpointError | CallError:
    status, why = error.status_code, str(error)
    words = f"{error.code or ''} {why}".lower()
    if status in NO_KEY:
        do = "set HF_TOKEN (or API_KEY) to a key for this endpoint"
        return NoKeyError("The endpoint refused the key.", where=where, why=why, do=do)
    if status == 402 or (status == 429 and _names(USED_UP, words)):
        do = "add credit, then run the same command to resume"
        return EndpointError("The endpoint's quota is used up.", where=where, why=why, do=do)
    if status in TOO_SLOW:
        return too_slow(where)
    if status in BUSY:
        wait_s = retry_after_s(cast("Mapping[str, str]", error.response.headers), time.time())
        return BusyError("The endpoint is busy.", where=where, why=why, retry_after_s=wait_s)
    if status in REFUSED:
        return RequestError(_refusal(words), where=where, why=why)
    return OutageError("The endpoint failed.", where=where, why=why)


def _refusal(words: str) -> str:
    if _names(TOO_LONG, words):
        return "Prompt and answer do not fit into the model's context."
    if _names(FILTERED, words):
        return "The endpoint's content filter refused the prompt."
    return "The endpoint refused the request."


def _connection(error: "openai.APIConnectionError", where: str) -> EndpointError | CallError:
    import aiohttp

    do = "check API_BASE_URL, and that the server is up"
    causes = list(_causes(error))
    why = next((str(cause) for cause in causes if str(cause)), str(error))
    connecting = any(isinstance(cause, aiohttp.ClientConnectorError) for cause in causes)
    for cause in causes:
        match cause:
            case socket.gaierror():
                return _no_such_host(why, where)
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


def _no_such_host(why: str, where: str) -> UnreachableError:
    return UnreachableError(
        "The endpoint's host name cannot be resolved.", where=where, why=why, do="check API_BASE_URL"
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The chain of causes of an exception, nearest first."""
    cause = error.__cause__ or error.__context__
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _names(known: tuple[str, ...], words: str) -> bool:
    return any(one in words for one in known)
