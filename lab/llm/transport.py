"""The transport: the client of the openai package for one address, with what may go there and nothing else.

It owns credentials, headers and the query of the address, proxies, and the limit on an error's body.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from lab.errors import ConfigError

if TYPE_CHECKING:
    import httpx2
    import openai

OPENAI_HOST = "api.openai.com"
"""The host to which `OPENAI_ORG_ID` and `OPENAI_PROJECT_ID` apply."""

AZURE = "api-version"
"""Part of the query of Azure's addresses, which take the key in the header `api-key`."""

MOST_ERROR_BYTES = 64_000
"""Maximum bytes read of the body of an error or a redirect."""


def open_client(url: str, api_key: str, headers: Sequence[tuple[str, str]]) -> "openai.AsyncOpenAI":
    """The client for `url`, which closes it.

    Raises:
        ConfigError: A SOCKS proxy is set.
    """
    import openai

    _refuse_socks(url)
    address, query, credentials = _split(url)
    sent = dict(headers)
    if AZURE in query:
        sent.setdefault("api-key", api_key)
    client = openai.AsyncOpenAI(
        base_url=address,
        api_key=api_key,
        max_retries=0,  # attempts are `lab.llm.throttle`'s
        # The client's own default looks at every open connection for each call.
        http_client=openai.DefaultAioHttpClient(
            auth=credentials,
            event_hooks={"response": [_cut_error]},
            follow_redirects=not sent,  # the client would take headers to any host
        ),
        default_headers={"Accept-Encoding": "identity", **sent},  # a small body may unpack to gigabytes
        default_query=query,
    )
    if urlsplit(address).hostname != OPENAI_HOST:  # the client takes them from the environment
        client.organization = client.project = None
    return client


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


def _refuse_socks(url: str) -> None:
    """Refuse a SOCKS proxy for `url`, which the client would treat as an HTTP proxy."""
    parts, proxies = urlsplit(url), getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all", "")
    if proxy.startswith("socks") and not proxy_bypass(parts.hostname or ""):
        where, do = (
            f"{parts.scheme.upper()}_PROXY or ALL_PROXY",
            "name an HTTP proxy, or the host in NO_PROXY",
        )
        raise ConfigError("Calls cannot go through a SOCKS proxy.", where=where, do=do)


def _split(url: str) -> tuple[str, dict[str, object], tuple[str, str] | None]:
    """The address; its query; and the user and password in it, which are sent instead of the key."""
    parts = urlsplit(url)
    address = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))
    query: dict[str, object] = dict(parse_qsl(parts.query))
    credentials = (unquote(parts.username or ""), unquote(parts.password or ""))
    return address, query, credentials if "@" in parts.netloc else None
