"""Addresses: URLs of endpoints and servers, without credentials for display; bounded reads from them."""

import re
from collections.abc import AsyncIterable
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit


def shown_url(url: str) -> str:
    """`url` without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:  # a bracket that is not closed
        return "[malformed URL]"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


_SECRET = re.compile(r"key|token|secret|sig|pass|auth|code", re.IGNORECASE)
"""Names of a query's parameters that hold credentials."""


def without_secrets(url: str) -> str:
    """`url` without user, password, fragment, and the parameters of its query that hold credentials."""
    try:
        query = parse_qsl(urlsplit(url).query)
    except ValueError:
        query = []
    kept = urlencode([(name, value) for name, value in query if not _SECRET.search(name)])
    return f"{shown_url(url)}?{kept}" if kept else shown_url(url)


def is_url(text: str) -> bool:
    """Whether `text` can be an environment server's URL."""
    return urlsplit(text).scheme in ("http", "https", "ws", "wss")


async def read_within(parts: AsyncIterable[bytes], most: int) -> bytes | None:
    """A body of at most `most` bytes; None for a longer one, whose rest is not read."""
    body = bytearray()
    async for part in parts:
        body += part
        if len(body) > most:
            return None
    return bytes(body)
