"""A Refusal: what a server said with an HTTP error, in whatever shape its body is.

It owns finding the server's own sentence; what follows from it is `lab.llm.failures`'s.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

LONGEST = 400
"""Characters kept of the sentence."""

_SENTENCES = ("message", "msg", "detail", "error", "error_description", "title", "errors", "reason")
"""Keys that hold the sentence, or a table or a list with it, the most telling first."""

_MORE = ("raw", "reasons")
"""Keys of `metadata`, in which a gateway passes on the words of the provider behind it."""

_DEEPEST = 6


@dataclass(frozen=True)
class Refusal:
    """A server's answer to a request that it refused.

    Attributes:
        message: The server's own sentence, on one line.
        code: Its code, type or status in words; empty if it gave none.
        param: The parameter that it names, in lower case with underscores; empty if it named none.
    """

    status: int
    message: str
    code: str = ""
    param: str = ""

    @property
    def words(self) -> str:
        """Code and sentence in lower case, with presencePenalty as presence_penalty, for classification."""
        return _snake(f"{self.code} {self.message}")

    def __str__(self) -> str:
        return f"{self.status}: {self.message}" if self.message else f"status {self.status}"


def read_refusal(status: int, body: bytes) -> Refusal:
    """Parse an error's body: JSON of any shape, an HTML page, or text."""
    text = body.decode("utf-8", "replace")
    try:
        table = json.loads(text)
        if isinstance(table, str):
            return Refusal(status, _line(table))
        error = _error_of(table)
        said = [*_sentences(table, _DEEPEST), *_passed_on(error)]
        code = _code(error, table.get("code") if isinstance(table, dict) else None)
        message = " ".join(dict.fromkeys(said)) or (text if table and not code else "")
        return Refusal(status, _line(message), code, _snake(_param(error)))
    except (ValueError, RecursionError):
        return Refusal(status, _line(_plain_text(text)))


def _error_of(table: Any) -> dict[str, Any]:  # noqa: ANN401  # JSON
    """The table that describes the error: the innermost `error`."""
    if isinstance(table, list):
        return _error_of(table[0]) if table else {}
    if not isinstance(table, dict):
        return {}
    inner = table.get("error")
    return _error_of(inner) if isinstance(inner, dict) else table


def _sentences(value: Any, depth: int) -> Iterator[str]:  # noqa: ANN401  # JSON
    match value:
        case str():
            yield value
        case list() if depth:
            for one in value[:3]:
                yield from _sentences(one, depth - 1)
        case dict() if depth:
            found = (said for key in _SENTENCES if (said := list(_sentences(value.get(key), depth - 1))))
            yield from next(found, [])
            if place := _place(value):
                yield f"({place})"


def _passed_on(error: dict[str, Any]) -> Iterator[str]:
    metadata = error.get("metadata")
    for said in map(metadata.get, _MORE) if isinstance(metadata, dict) else ():
        texts: list[Any] = said if isinstance(said, list) else [said]
        if any(texts) and all(isinstance(one, str) for one in texts):
            yield f"({', '.join(texts)})"


def _place(table: dict[str, Any]) -> str:
    """Where in the request FastAPI found a mistake."""
    place = table.get("loc")
    return ".".join(map(str, place)) if isinstance(place, list) else ""


def _code(error: dict[str, Any], outer: object) -> str:
    found = [*map(error.get, ("code", "type", "status")), outer, _first_detail(error).get("type")]
    return " ".join(dict.fromkeys(one for one in found if isinstance(one, str)))


def _param(error: dict[str, Any]) -> str:
    param = error.get("param")
    return param if isinstance(param, str) else _place(_first_detail(error)).removeprefix("body.")


def _first_detail(error: dict[str, Any]) -> dict[str, Any]:
    """The first of FastAPI's mistakes in a request."""
    details = error.get("detail")
    return details[0] if isinstance(details, list) and details and isinstance(details[0], dict) else {}


def _plain_text(text: str) -> str:
    """A page's title, or its text without tags; any other text as it is."""
    if not re.search(r"<\w+[^>]*>", text):
        return text
    title = re.search(r"<title[^>]*>(.*?)</title", text, re.DOTALL | re.IGNORECASE)
    import html  # here, because START waits for the imports above

    return html.unescape(title[1] if title else re.sub(r"<[^>]*>", " ", text))


def _snake(text: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", text).lower()


def _line(text: str) -> str:
    line = " ".join(text[: 4 * LONGEST].split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."
