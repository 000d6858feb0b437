"""The model's answer as it came over the wire: bytes, whose fields may be absent or of any kind.

It owns what is an answer and what is not; what is none is a CallError that says why.
"""

import json
from dataclasses import dataclass
from typing import Any

from lab.errors import CallError, RequestError

MOST_BYTES = 4_000_000
"""Of an answer; the longest that a task may ask for, 32,768 tokens, has a tenth of it."""


@dataclass(frozen=True)
class Answer:
    """What the endpoint sent; the tokens are 0 where it does not count them."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


def read_answer(body: bytes, where: str) -> Answer:
    """Read an answer's body.

    Raises:
        CallError: it is no answer.
        RequestError: the endpoint's filter withheld it.
    """
    try:
        table = json.loads(body)
    except ValueError as error:
        why = f"{error}: {body[:100].decode('utf-8', 'replace')}"
        raise CallError("The model's answer is not JSON.", where=where, why=why) from None
    choices = _field(table, "choices")
    if not isinstance(choices, list) or not choices:
        why = str(_field(table, "error") or "")
        raise CallError("The model's answer has no choices.", where=where, why=why)
    reason = _field(choices[0], "finish_reason")
    text = _text(_field(_field(choices[0], "message"), "content"))
    if reason == "content_filter" and not text:
        raise RequestError("The endpoint's content filter withheld the answer.", where=where)
    if text is None:
        why = f"finish_reason {reason!r}"
        raise CallError("The model's answer has no text.", where=where, why=why)
    usage = _field(table, "usage")
    return Answer(
        # A lone surrogate can come through JSON, and could be neither sent on nor written.
        text=text.encode("utf-8", "replace").decode("utf-8"),
        finish_reason=reason if isinstance(reason, str) else "",
        prompt_tokens=_count(_field(usage, "prompt_tokens")),
        completion_tokens=_count(_field(usage, "completion_tokens")),
    )


def _field(table: Any, name: str) -> Any:  # noqa: ANN401  # of JSON
    return table.get(name) if isinstance(table, dict) else None


def _text(content: Any) -> str | None:  # noqa: ANN401  # of JSON
    """A message's content is a text, or a list of parts with texts."""
    if isinstance(content, list):
        texts = [_field(part, "text") for part in content]
        return "".join(text for text in texts if isinstance(text, str)) or None
    return content if isinstance(content, str) else None


def _count(value: Any) -> int:  # noqa: ANN401  # of JSON
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
