"""A PromptTemplate: a candidate's system text and turn text.

It owns the placeholder syntax and its rendering; the agent decides which values exist at a step. Values are
inserted in one pass and not parsed again, so text from an environment cannot act as syntax.
"""

import re
import string
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from lab.errors import ConfigError, MistakeError, all_of, meant, nearest, unknown_key
from lab.files import line_of, line_with, toml_line

TEXTS = ("system", "turn")
"""Keys of a template's texts."""

OPENING = "opening"
"""Placeholder for the episode's first observation; in the turn text, without a value at the first step."""

SYSTEM_PLACEHOLDERS = frozenset({"max_steps", "schema", OPENING})
"""Placeholders of the system text: only values that are constant in an episode, for prefix caches."""

TURN_PLACEHOLDERS = frozenset({"step", "max_steps", "observation", OPENING, "reward", "history"})

FIELD, OPENING_FIELD = "observation.", f"{OPENING}."
"""Prefixes of the placeholders for a field of the last and of the first observation."""

_FIELDS = {"system": (OPENING_FIELD,), "turn": (FIELD, OPENING_FIELD)}
"""The prefixes that a text may use."""

KEYS = ("about", *TEXTS)
"""Keys of a template file."""

Values = Mapping[str, str | None]
"""A placeholder's text, or None if it has no value at this step."""


@dataclass(frozen=True)
class PromptTemplate:
    """System and turn text with `{placeholders}`; `{{` and `}}` are literal braces.

    A paragraph (lines up to an empty line) with a placeholder that has no value at this step is left out:
    no history before the first step, no reward if rewards are hidden.

    Raises:
        ConfigError: A text is not a string or empty, has a stray brace, or an unknown placeholder.
    """

    name: str
    system: str
    turn: str

    def __post_init__(self) -> None:
        for key in TEXTS:
            for _, _, error in _mistakes(key, getattr(self, key)):
                where = f"template {self.name!r}, {key}"
                raise ConfigError(error.what, where=where, why=error.why, do=error.do)

    @cached_property
    def fields(self) -> frozenset[str]:
        """The observation fields used by the turn text."""
        return _fields_after(FIELD, placeholders(self.turn))

    @cached_property
    def opening_fields(self) -> frozenset[str]:
        """The fields of the first observation that its texts use."""
        return _fields_after(OPENING_FIELD, [*placeholders(self.system), *placeholders(self.turn)])

    @cached_property
    def names_schema(self) -> bool:
        """Whether the system text contains `{schema}`."""
        return "schema" in placeholders(self.system)

    def render_system(self, values: Values) -> str:
        """The system message's text."""
        return _render(self.system, values)

    def render_turn(self, values: Values) -> str:
        """The text of one user message."""
        return _render(self.turn, values)


def _fields_after(prefix: str, names: Iterable[str]) -> frozenset[str]:
    """The fields that placeholders with this prefix name."""
    return frozenset(name.removeprefix(prefix) for name in names if name.startswith(prefix))


FindTemplate = Callable[[str], PromptTemplate]
"""Finds a template by name; raises ConfigError if it does not exist."""


def find_template(folder: Path, name: str) -> PromptTemplate:
    """Read the template `name` from the project's templates folder.

    Raises:
        ConfigError: As `load_template`, or the file is outside that folder.
    """
    path = folder / f"{name}.toml"
    if not path.resolve().is_relative_to(folder.resolve()):
        do = f"copy it to {folder}, and use its file name without .toml"
        what = f"The template {name!r} is outside the project's templates folder."
        raise ConfigError(what, do=do)
    return load_template(path)


def load_template(path: Path) -> PromptTemplate:
    """Read a template file: TOML with `about` (one line for people), `system` and `turn`.

    Raises:
        ConfigError: The file is missing: without a place, which is where it is named.
        MistakeError, MistakesError: The file is not TOML, or its keys or texts are invalid.
    """
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except FileNotFoundError:
        known = sorted(file.stem for file in path.parent.glob("*.toml"))
        do = meant(path.stem, known, f"name one of: {', '.join(known) or 'none'}")
        raise ConfigError(f"The template {path.stem!r} does not exist.", do=do) from None
    except (OSError, ValueError) as error:
        unread = ConfigError("A template cannot be read.", why=str(error))
        raise MistakeError(unread, path, toml_line(error)) from None
    if found := list(_placed(path, text, table)):
        raise all_of(found)
    return PromptTemplate(path.stem, table["system"], table["turn"])


def _placed(path: Path, text: str, table: Mapping[str, object]) -> Iterator[MistakeError]:
    """The mistakes of a template's file."""
    names = {key: key for key in TEXTS if key in table}
    for name in table:
        if name not in KEYS:
            yield MistakeError(unknown_key(name, KEYS, where=name), path, line_of(text, name), name)
            names = {nearest(name, TEXTS): name, **names}  # a misspelt key is not missing too
    for key in TEXTS:
        if key not in names:
            do = "set it: a template has the keys about, system and turn"
            yield MistakeError(ConfigError(f"{key} is missing.", do=do), path, 0, key)
            continue
        top = line_of(text, names[key]) or 1
        for below, part, error in _mistakes(key, table[names[key]]):
            yield MistakeError(error, path, line_with(text, part, top + below) or top, key)


def _mistakes(key: str, text: object) -> Iterator[tuple[int, str, ConfigError]]:
    """Each mistake of a text, after the number of lines above it, and what it stands in.

    A placeholder is within one line, so each line can be checked by itself.
    """
    if not isinstance(text, str) or not text.strip():
        yield 0, "", ConfigError("A template's text must be a non-empty string.", do=f"write {key}")
        return
    allowed = SYSTEM_PLACEHOLDERS if key == "system" else TURN_PLACEHOLDERS
    for below, line in enumerate(text.split("\n")):
        try:
            named = {field for _, field in _segments(line) if field is not None}
        except ValueError as error:
            do = "escape literal braces as {{ and }}"
            yield below, line, ConfigError("A template's braces do not match.", why=str(error), do=do)
            continue
        for name in sorted(named - allowed):
            if not name.startswith(_FIELDS[key]):
                near, known = nearest(name, allowed), ", ".join(f"{{{one}}}" for one in sorted(allowed))
                do = f"did you mean {{{near}}}?" if near else f"use {known}"
                yield below, f"{{{name}}}", ConfigError(f"Unknown placeholder {{{name}}}.", do=do)


Paragraph = tuple[tuple[str, str | None], ...]
"""(literal text, placeholder after it or None) in order."""


def placeholders(text: str) -> list[str]:
    """The placeholders of a template's text, in their order."""
    named = (field for paragraph in paragraphs(text) for _, field in paragraph if field is not None)
    return list(dict.fromkeys(named))


@lru_cache(maxsize=4096)
def paragraphs(text: str) -> tuple[Paragraph, ...]:
    """A template's text, parsed into paragraphs.

    Raises:
        ValueError: Its braces do not match, or a placeholder is not a plain name.
    """
    return tuple(tuple(_segments(part)) for part in re.split(r"\n[ \t]*\n", text.strip()))


def _segments(text: str) -> Iterator[tuple[str, str | None]]:
    for literal, field, spec, conversion in string.Formatter().parse(text):
        if field is not None and (spec or conversion or not _is_name(field)):
            raise ValueError(f"{{{field}}} must be a plain name")
        yield literal, field


def _is_name(field: str) -> bool:
    """Whether it is a placeholder's name: a plain one, or an observation field's, nested by dots."""
    nested = field.startswith((FIELD, OPENING_FIELD))
    return all(part.isidentifier() for part in (field.split(".") if nested else [field]))


def _render(text: str, values: Values) -> str:
    rendered = (_render_paragraph(paragraph, values) for paragraph in paragraphs(text))
    return "\n\n".join(paragraph for paragraph in rendered if paragraph is not None)


def _render_paragraph(paragraph: Paragraph, values: Values) -> str | None:
    parts: list[str] = []
    for literal, field in paragraph:
        value = "" if field is None else _value(field, values)
        if value is None:
            return None
        parts += [literal, value]
    return "".join(parts)


def _value(field: str, values: Values) -> str | None:
    try:
        return values[field]
    except KeyError:
        prefix = OPENING_FIELD if field.startswith(OPENING_FIELD) else FIELD
        known = ", ".join(f"{{{name}}}" for name in values if name.startswith(prefix)) or "none"
        what, do = f"The observation has no {{{field}}}.", f"use {{{prefix[:-1]}}}; its fields are {known}"
        raise ConfigError(what, where="a template's text", do=do) from None
