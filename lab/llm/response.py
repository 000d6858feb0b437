"""The model's answer as it came over the wire: bytes, whose fields may be absent or of any kind.

It owns what is an answer and what is not; what is none is a CallError that says why.
"""

import json
from dataclasses import dataclass
from typing import Any

from lab.errors import CallError, RequestError, plain

MOST_BYTES = 4_000_000
"""Of an answer; the longest that a task may ask for, 32,768 tokens, has a tenth of it."""

MOST_TOKENS = 10_000_000
"""Of one call, in or out: a larger number is no count, and counts as not reported."""

MOST_REASON = 100
"""Characters of a finish_reason that are kept."""


@dataclass(frozen=True)
class Answer:
    """What the endpoint sent; the tokens are 0 where it does not count them."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


def read_answer(body: bytes, where: str) -> Answer:
    """Read an answer's body. An answer without content, as of a model that only thought, has an empty text.

    Raises:
        CallError: it is no answer; its `answered` has the tokens that it took.
        RequestError: the endpoint's filter withheld it.
    """
    tokens = 0, 0
    try:
        table = _table(body, where)
        usage = _field(table, "usage")
        tokens = count(_field(usage, "prompt_tokens")), count(_field(usage, "completion_tokens"))
        return Answer(*_said(table, where), *tokens)
    except CallError as error:
        error.answered = tokens
        raise
    except RecursionError:
        deep = CallError("The model's answer is nested too deeply.", where=where)
        deep.answered = tokens
        raise deep from None


def count(value: object) -> int:
    """A number of tokens as an endpoint reports it; 0 where it is none."""
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else 0


def _table(body: bytes, where: str) -> Any:  # noqa: ANN401  # JSON
    try:
        return json.loads(body)
    except ValueError as error:
        why = f"{error}: {body[:100].decode('utf-8', 'replace')}"
        raise CallError("The model's answer is not JSON.", where=where, why=why) from None


def _said(table: Any, where: str) -> tuple[str, str]:  # noqa: ANN401  # JSON
    """The answer's text and finish_reason."""
    choices = _field(table, "choices")
    if not isinstance(choices, list) or not choices:
        why = str(_field(table, "error") or "")
        raise CallError("The model's answer has no choices.", where=where, why=why)
    reason, message = _field(choices[0], "finish_reason"), _field(choices[0], "message")
    text = _text(_field(message, "content"))
    if reason == "content_filter" and not text:
        raise RequestError("The endpoint's content filter withheld the answer.", where=where)
    ended = isinstance(message, dict) and isinstance(reason, str) and reason != "error"
    if text is None and not ended:
        raise CallError("The model's answer has no text.", where=where, why=f"finish_reason {reason!r}")
    # A lone surrogate can come through JSON, and could be neither sent on nor written.
    clean = (text or "").encode("utf-8", "replace").decode("utf-8")
    return clean, plain(reason)[:MOST_REASON] if isinstance(reason, str) else ""


def _field(table: Any, name: str) -> Any:  # noqa: ANN401  # of JSON
    return table.get(name) if isinstance(table, dict) else None


def _text(content: Any) -> str | None:  # noqa: ANN401  # of JSON
    """A message's content is a text, or a list of parts with texts."""
    if isinstance(content, list):
        texts = [_field(part, "text") for part in content]
        return "".join(text for text in texts if isinstance(text, str)) or None
    return content if isinstance(content, str) else None
