"""The response: parses a model's answer from bytes whose fields may be missing or of any type.

It owns the rules of a valid answer; an invalid one is a CallError with the reason.
"""

import json
from dataclasses import dataclass
from typing import Any

from lab.errors import CallError, RequestError, plain

MOST_BYTES = 4_000_000
"""Maximum bytes of an answer; the longest a task may request, 32,768 tokens, has a tenth of that."""

MOST_TOKENS = 10_000_000
"""Maximum plausible tokens of a call, prompt or completion; a larger number counts as not reported."""

MOST_REASON = 100
"""Characters kept of a finish_reason."""


@dataclass(frozen=True)
class Answer:
    """The endpoint's answer; the tokens are 0 if it does not count them."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


def read_answer(body: bytes, where: str) -> Answer:
    """Parse an answer's body. An answer without content, as from a model that only thought, has empty text.

    Raises:
        CallError: The body is not a valid answer; `answered` has its tokens.
        RequestError: The endpoint's content filter withheld the answer.
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
    """The reported number of tokens, or 0 if it is not a plausible count."""
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
    # JSON may contain a lone surrogate, which could be neither sent nor written.
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
