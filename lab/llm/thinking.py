"""Thinking: the part of a model's output in which it reasons, separated from its answer.

It owns the places of thinking in a message: separate fields and content parts, and between tags.
"""

import re
from collections.abc import Iterator
from typing import Any

_FIELDS = ("reasoning_content", "reasoning", "thinking")
"""Fields of a message that hold thinking; a field repeated under another name counts once."""

_PARTS = ("thinking", "reasoning", "redacted_thinking")
"""Types of content parts that hold thinking."""

_OPEN = r"<(?:\w+:)?think(?:ing)?>|\[THINK\]|◁think▷"
_CLOSE = r"</(?:\w+:)?think(?:ing)?>|\[/THINK\]|◁/think▷"
_TAG = f"(?P<open>{_OPEN})|{_CLOSE}"


def thinking_of(message: Any) -> str:  # noqa: ANN401  # JSON
    """The thinking in a message's fields and content parts."""
    if not isinstance(message, dict):
        return ""
    said = [_text(message.get(name)) for name in _FIELDS]
    content = message.get("content")
    parts = [one for one in content if is_thinking(one)] if isinstance(content, list) else []
    return "\n".join(dict.fromkeys(filter(None, [*said, *(_text(part) for part in parts)])))


def is_thinking(part: Any) -> bool:  # noqa: ANN401  # JSON
    """Whether a part of a message's content holds thinking."""
    return isinstance(part, dict) and part.get("type") in _PARTS


def split(text: str, *, cut_off: bool, unopened: bool) -> tuple[str, str, bool]:
    """Separate what stands between thinking tags from the rest.

    Args:
        cut_off: Whether the answer ended at its token limit.
        unopened: Whether this model's answers begin inside the thinking, without an opening tag.

    Returns:
        The answer; the thinking; and whether its first closing tag had no opening one. An answer that ends
        inside the thinking is empty.
    """
    said, thought, at, inside, began_inside = list[str](), list[str](), 0, False, False
    for tag in re.finditer(_TAG, text):
        part = text[at : tag.start()]
        if not at and not tag["open"]:
            inside = began_inside = True
        (thought if inside else said).append(part)
        at, inside = tag.end(), bool(tag["open"])
    if not at:
        return ("", text, False) if unopened and cut_off else (text, "", False)
    (thought if inside else said).append(text[at:])
    thinking = "\n".join(one.strip() for one in thought if one.strip())
    return "" if inside else "".join(said).strip(), thinking, began_inside


def _text(value: Any) -> str:  # noqa: ANN401  # JSON
    """A text, or the texts in a part or a list of parts."""
    return "\n".join(_texts(value, 4))


def _texts(value: Any, depth: int) -> Iterator[str]:  # noqa: ANN401  # JSON
    match value:
        case str() if value:
            yield value
        case list() if depth:
            for one in value:
                yield from _texts(one, depth - 1)
        case dict() if depth:
            for key in ("thinking", "reasoning", "text", "content", "summary"):
                yield from _texts(value.get(key), depth - 1)
