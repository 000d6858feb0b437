"""Repair: a written text, changed as little as needed to be played in the place of its parent's.

Placeholders are kept by construction: the parent's paragraphs with those that the writer lost are appended.
"""

import re
from collections.abc import Iterable

from lab.agent.template import FIELD, SYSTEM_PLACEHOLDERS, TURN_PLACEHOLDERS, paragraphs, placeholders

_PARAGRAPH = re.compile(r"\n[ \t]*\n")
_BRACES = re.compile(r"\{\{\s*[\w.]+\s*\}\}|\{\{|\}\}|\{[^{}]*\}|[{}]")
_FENCE = re.compile(r"\A\s*(```|'''|\"\"\")[a-z]*\n(.*)\n\s*\1\s*\Z", re.DOTALL)


def repaired(text: str, parent: str, part: str) -> str:
    """Return `text` without a fence around it, unprintable characters and lost or unknown placeholders.

    Args:
        parent: The text that it replaces.
        part: `system` or `turn`.
    """
    if text.strip() == parent.strip():
        return text.strip()
    text = "".join(one for one in text if one.isprintable() or one in "\n\t").strip()
    text = fenced[2].strip() if (fenced := _FENCE.match(text)) else text
    named = placeholders(parent)
    usual = SYSTEM_PLACEHOLDERS if part == "system" else TURN_PLACEHOLDERS
    text = _escaped(text, {*usual, *named})
    return _with_lost(text, parent, set(named) - set(placeholders(text))) if text else text


def _escaped(text: str, known: Iterable[str]) -> str:
    """The text with all braces literal but those of known placeholders; a field may lack its prefix."""
    meant = {name.removeprefix(FIELD): name for name in known} | {name: name for name in known}

    def replaced(found: re.Match[str]) -> str:
        braces = found[0]
        if (name := meant.get(braces.strip("{}").strip())) is not None:
            return f"{{{name}}}"
        doubled = braces.startswith("{{") or braces == "}}"
        return braces if doubled else braces.replace("{", "{{").replace("}", "}}")

    return _BRACES.sub(replaced, text)


def _with_lost(text: str, parent: str, lost: set[str]) -> str:
    """The text, with the parent's paragraphs that have these placeholders appended."""
    parts = _PARAGRAPH.split(parent.strip())
    missing = [
        part
        for part, parsed in zip(parts, paragraphs(parent), strict=True)
        if any(name in lost for _, name in parsed)
    ]
    return "\n\n".join([text, *missing])
