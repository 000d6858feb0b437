"""The response: a Completion, parsed from bytes whose fields may be missing or of any type.

It owns the rules of a valid answer; an invalid one is a CallError with the reason. Where thinking stands is
`lab.llm.thinking`'s.
"""

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from lab.errors import BusyError, CallError, RequestError, plain, writable
from lab.llm.dialect import OPENAI, Dialect
from lab.llm.failures import BUSY
from lab.llm.refusal import read_refusal
from lab.llm.request import ACTION
from lab.llm.thinking import is_thinking, split, thinking_of

MOST_BYTES = 4_000_000
"""Maximum bytes of an answer; the longest a task may request, 32,768 tokens, has a tenth of that."""

MOST_TOKENS = 10_000_000
"""Maximum plausible tokens of a call, prompt or completion; a larger number counts as not reported."""

MOST_REASON = 100
"""Characters kept of a finish_reason."""


@dataclass(frozen=True)
class Completion:
    """The model's answer to one call, and what it cost.

    Attributes:
        text: The answer, without thinking; empty if there was none.
        prompt_tokens, completion_tokens: Tokens as the endpoint counts them, thinking included.
        latency_s: Seconds from request to answer, including failed attempts and waits.
        attempts: Number of attempts.
        thinking: The model's reasoning, as far as it is shown; it is never the action.
        thinking_tokens: Tokens of it.
        estimated: Whether a number of tokens is an estimate, because the endpoint does not count it.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    latency_s: float = 0.0
    attempts: int = 1
    thinking: str = ""
    thinking_tokens: int = 0
    estimated: bool = False

    @property
    def only_thought(self) -> bool:
        """Whether the answer ended before the model had said anything."""
        return not self.text.strip() and bool(self.thinking or self.thinking_tokens)


@dataclass(frozen=True)
class Answer(Completion):
    """An answer as it was parsed: its tokens are 0 where the endpoint does not count them.

    Attributes:
        began_inside: Whether a closing tag showed that the text began inside the thinking.
    """

    began_inside: bool = False


class Usage(NamedTuple):
    """Tokens of a call, as the endpoint counts them; 0 for what it does not count."""

    prompt: int = 0
    completion: int = 0
    thinking: int = 0


def read_answer(body: bytes, where: str, dialect: Dialect = OPENAI) -> Answer:
    """Parse an answer's body. An answer without content, as from a model that only thought, has empty text.

    Raises:
        CallError: The body is not a valid answer; `answered` has its tokens.
        RequestError: The endpoint's content filter withheld the answer.
    """
    usage = Usage()
    try:
        table = _table(body, where)
        usage = _usage(_field(table, "usage"))
        text, reason, message = _said(table, where)
        cut_off = reason == "length"
        text, between, began = split(text, cut_off=cut_off, unopened=dialect.thinking == "unopened")
        thinking = "\n".join(filter(None, [writable(thinking_of(message)), between]))
        tokens = (usage.prompt, usage.completion)
        return Answer(
            text, reason, *tokens, thinking=thinking, thinking_tokens=usage.thinking, began_inside=began
        )
    except CallError as error:
        error.answered = usage[:2]
        raise
    except RecursionError:
        deep = CallError("The model's answer is nested too deeply.", where=where)
        deep.answered = usage[:2]
        raise deep from None


def count(value: object) -> int:
    """The reported number of tokens, or 0 if it is not a plausible count."""
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else 0


def reported_usage(body: bytes) -> tuple[int, int] | None:
    """The tokens that a refused request was billed for, if the error says so."""
    try:
        usage = _usage(_field(json.loads(body), "usage"))
    except (ValueError, RecursionError):
        return None
    return usage[:2] if any(usage) else None


def _usage(table: Any) -> Usage:  # noqa: ANN401  # JSON
    """Some endpoints count thinking among the completion's tokens, and some only in the total."""
    prompt, completion = count(_field(table, "prompt_tokens")), count(_field(table, "completion_tokens"))
    details = _field(table, "completion_tokens_details")
    thinking = count(_field(details, "reasoning_tokens")) or count(_field(table, "reasoning_tokens"))
    beside = count(_field(table, "total_tokens")) - prompt - completion
    if prompt and beside > 0:
        completion, thinking = completion + beside, max(thinking, beside)
    return Usage(prompt, completion, min(thinking, completion))


def _table(body: bytes, where: str) -> Any:  # noqa: ANN401  # JSON
    try:
        return json.loads(body)
    except ValueError as error:
        why = f"{error}: {body[:100].decode('utf-8', 'replace')}"
        raise CallError("The model's answer is not JSON.", where=where, why=why) from None


def _said(table: Any, where: str) -> tuple[str, str, Any]:  # noqa: ANN401  # JSON
    """The answer's text, its finish_reason, and the message that they are from."""
    choices = _field(table, "choices")
    if not isinstance(choices, list) or not choices:
        raise _error("The model's answer has no choices.", _field(table, "error"), where)
    reason, message = _field(choices[0], "finish_reason"), _field(choices[0], "message")
    text = _text(_field(message, "content"))
    text = text or _arguments(message) or text
    if reason == "content_filter" and not text:
        raise RequestError("The endpoint's content filter withheld the answer.", where=where)
    if reason == "error" or _field(choices[0], "error"):
        raise _error("The model's answer is an error.", _field(choices[0], "error"), where)
    if text is None and not (isinstance(message, dict) and isinstance(reason, str)):
        raise CallError("The model's answer has no text.", where=where, why=f"finish_reason {reason!r}")
    return writable(text or ""), plain(reason)[:MOST_REASON] if isinstance(reason, str) else "", message


def _error(what: str, error: Any, where: str) -> CallError:  # noqa: ANN401  # JSON
    """The error for an answer in which the endpoint reports one."""
    why = read_refusal(200, json.dumps(error).encode()).message if error else ""
    kind = BusyError if _field(error, "code") in BUSY else CallError
    return kind(what, where=where, why=why)


def _field(table: Any, name: str) -> Any:  # noqa: ANN401  # of JSON
    return table.get(name) if isinstance(table, dict) else None


def _text(content: Any) -> str | None:  # noqa: ANN401  # of JSON
    """A message's content is a text, or a list of parts with texts."""
    if isinstance(content, list):
        texts = [_field(part, "text") for part in content if not is_thinking(part)]
        return "".join(text for text in texts if isinstance(text, str)) or None
    return content if isinstance(content, str) else None


def _arguments(message: Any) -> str | None:  # noqa: ANN401  # of JSON
    """The arguments of the tool that stands for the action, in place of a text."""
    calls = _field(message, "tool_calls")
    function = _field(calls[0], "function") if isinstance(calls, list) and calls else None
    arguments = _field(function, "arguments")
    return arguments if _field(function, "name") == ACTION and isinstance(arguments, str) else None
