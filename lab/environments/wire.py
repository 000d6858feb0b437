"""A Wire: HTTP requests to one server, bounded in time and size, and never redirected to another host."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from lab.addresses import read_within, shown_url
from lab.environments.failures import failure
from lab.errors import EnvError

if TYPE_CHECKING:
    import httpx

MOST_BYTES = 4_000_000
"""Maximum bytes of an answer."""

MOST_SHOWN = 300
"""Characters of an answer that are shown in an error."""


@dataclass(frozen=True)
class Reply:
    """An HTTP answer."""

    status: int
    body: bytes

    @property
    def found(self) -> bool:
        """Whether the server answers the request."""
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        """The status with the start of the body, or of FastAPI's error message in it, on one line."""
        told = self.json()
        body = self.body[: 10 * MOST_SHOWN].decode("utf-8", "replace")
        detail = told["detail"] if isinstance(told, dict) and "detail" in told else body
        shown = " ".join(str(detail).split())[:MOST_SHOWN]
        return f"HTTP {self.status}: {shown}" if shown else f"HTTP {self.status}"

    def json(self) -> Any:  # noqa: ANN401  # of JSON
        """The body's JSON; None if it is not JSON."""
        try:
            return self.read()
        except (ValueError, RecursionError):
            return None

    def read(self) -> Any:  # noqa: ANN401  # of JSON
        """The body's JSON.

        Raises:
            ValueError, RecursionError: It is not JSON, or nested too deeply.
        """
        return json.loads(self.body)


class Wire:
    """Requests to the server at `url`, over connections that are kept during the block.

    Args:
        headers: Sent with each request.
        timeout_s: Time limit of a request, in seconds.
    """

    def __init__(self, url: str, headers: Mapping[str, str], timeout_s: float) -> None:
        self.url = url.replace("ws", "http", 1) if url.startswith("ws") else url
        # No compression: a small body may unpack to gigabytes.
        self._headers, self._timeout_s = {"Accept-Encoding": "identity", **headers}, timeout_s
        self._client = self._connected()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    def _connected(self) -> "httpx.AsyncClient":
        import httpx

        return httpx.AsyncClient(timeout=self._timeout_s, headers=self._headers)

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send a request.

        Raises:
            EnvError: The server cannot be reached, or did not answer in time or within the limit.
        """
        import httpx

        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.stream(
                    method, f"{self.url}{path}", params=query, json=body, headers=headers
                ) as answer,
            ):
                read = await read_within(answer.aiter_raw(), MOST_BYTES)
        except (httpx.TimeoutException, TimeoutError) as error:
            raise failure(TimeoutError(str(error)), shown_url(self.url)) from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise failure(ConnectionError(str(error)), shown_url(self.url)) from error
        if answer.status_code >= 500:  # a server may close the connection after that, without saying so
            await self._client.aclose()
            self._client = self._connected()
        if read is None:
            why = f"it has more than {MOST_BYTES:,} bytes"
            raise EnvError("The server's answer is too long.", where=f"{shown_url(self.url)}{path}", why=why)
        return Reply(answer.status_code, read)
