"""An ActionForm: the fields of an environment's actions, and how a model's text becomes an action.

An action with one text field is the answer itself, or one of the words that the field allows; any other is
requested as JSON, repaired, and validated against the schema, which may be a union of several forms. Every
text yields an action or an ActionError with the reason.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

from lab.environments.answer import Values, clean, json_object
from lab.environments.foreign import raised
from lab.environments.object_form import ObjectForm
from lab.environments.schema import Schema, compact, is_text, options, words
from lab.errors import LabError, writable

Parse = Callable[[str, dict[str, Any]], Any]
"""A project's hook that parses an answer: text and schema in, the action's fields out."""

TOOL_CALL: Schema = {
    "type": "object",
    "properties": {
        "type": {"const": "call_tool"},
        "tool_name": {"type": "string", "description": "Name of the tool to call"},
        "arguments": {"type": "object", "description": "Arguments of the tool"},
    },
    "required": ["tool_name", "arguments"],
}
"""The action of OpenEnv's MCP environments, whose published schema has no fields."""

_MOST = 300
"""Maximum length of a reason, which the model reads."""

_AROUND = " \t\r\n.'\"`\u2018\u2019\u201c\u201d\u00ab\u00bb"
"""Characters around a word that do not belong to it."""


class ActionError(LabError):
    """A text that is not a valid action: an error of the step, not a failure of the episode."""


class StepError(ActionError):
    """The environment raised during an action, and may have partly executed it."""


@dataclass(frozen=True)
class Action:
    """An action, and its text for people and for the model."""

    values: Values
    shown: str


@dataclass(frozen=True)
class ActionForm:
    """The form of one environment's actions.

    Attributes:
        schema: JSON Schema of the action, as published by the environment.
        parse: Hook that replaces the parsing here.
        check: Additional validation by the environment; raises ValueError.
    """

    schema: Schema
    parse: Parse | None = None
    check: Callable[[Values], object] = field(default=lambda _: None)

    @cached_property
    def fields(self) -> dict[str, Any]:
        """The fields that the model chooses, without metadata and constants; empty for a union of forms."""
        return self._kinds[0].fields if len(self._kinds) == 1 else {}

    @cached_property
    def text_field(self) -> str | None:
        """The name of the only field, if it is a text; otherwise None."""
        if len(self.fields) != 1:
            return None
        name, rule = next(iter(self.fields.items()))
        return name if is_text(self._kinds[0].rule(rule)) else None

    @cached_property
    def words(self) -> list[str]:
        """The words that the only field allows; empty if it is not a text, or allows any text."""
        return words(self._kinds[0].rule(self.fields[self.text_field])) if self.text_field else []

    @cached_property
    def asked(self) -> str:
        """The JSON Schema of the answer requested from the model; empty for plain text."""
        if self.parse is not None or (self.text_field is not None and not self.words):
            return ""
        if self.words:
            return compact({"type": "string", "enum": self.words})
        if len(self._kinds) == 1:
            return compact(self._kinds[0].asked)
        defs = {name: one for kind in self._kinds for name, one in kind.schema.get("$defs", {}).items()}
        forms = [{name: one for name, one in kind.whole.items() if name != "$defs"} for kind in self._kinds]
        return compact({"oneOf": forms, "$defs": defs})

    @property
    def may_call_tools(self) -> bool:
        """Whether an action may be a tool call, as in OpenEnv's MCP environments."""
        return self.is_empty or any({*kind.fields} >= {"tool_name", "arguments"} for kind in self._kinds)

    @property
    def calls_tools(self) -> bool:
        """Whether an action is a call of one of the environment's tools."""
        return all(kind.given.get("type") == "call_tool" for kind in self._kinds)

    @property
    def is_empty(self) -> bool:
        """Whether the schema has no field that the model could choose."""
        return len(self._kinds) == 1 and not self.fields

    def with_tools(self, tools: Sequence[Mapping[str, Any]]) -> "ActionForm":
        """A form for calls of these tools only: each with its name, description and input schema."""
        calls = [
            {
                "description": tool.get("description", ""),
                "properties": {
                    "tool_name": {"const": tool["name"]},
                    "arguments": tool.get("input_schema") or {"type": "object"},
                },
            }
            for tool in tools
        ]
        return replace(self, schema={**TOOL_CALL, "anyOf": calls}) if calls else self

    def read(self, text: str) -> Action:
        """Parse `text` into an action.

        Raises:
            ActionError: It is not a valid action; the model also reads `why`.
            EnvError: The environment's schema is invalid.
        """
        try:
            if self.parse is not None:
                return self._checked(self._parsed(self.parse, text), text)
            if self.words:
                word = _word(text, self.words)
                return self._checked({self.text_field or "": word}, word)
            if self.text_field is not None:
                return self._checked({self.text_field: text}, text)
            found = json_object(text)
            return self._checked(found, json.dumps(found, ensure_ascii=False, separators=(",", ":")))
        except ValueError as error:
            raise ActionError("The answer is not a valid action", why=_shortened(str(error))) from error

    @cached_property
    def _kinds(self) -> list["ObjectForm"]:
        """The alternative forms of an action."""
        found = [ObjectForm(one) for one in options(self.schema) if one.get("type", "object") == "object"]
        return found or [ObjectForm(self.schema)]

    def _parsed(self, parse: Parse, text: str) -> Values:
        try:
            found = parse(text, json.loads(json.dumps(self.schema)))
        except BaseException as error:  # of the project's code, which may call sys.exit
            raise ValueError(str(error) if isinstance(error, ValueError) else raised(error)) from error
        if not isinstance(found, dict):
            raise ValueError(f"parse returned {type(found).__name__}, not a dict")
        return clean(found)

    def _checked(self, found: Values, shown: str) -> Action:
        values = self._settled(found)
        self.check(values)
        return Action(values, shown)

    def _settled(self, found: Values) -> Values:
        """The values with the constants of the only form that they match."""
        meant = [kind for kind in self._kinds if kind.agrees(found)] if len(self._kinds) > 1 else self._kinds
        if not meant:
            raise ValueError(_disagreement(found, self._kinds))
        wrong = [kind.mistake(kind.filled(found)) for kind in meant]
        right = [kind.filled(found) for kind, why in zip(meant, wrong, strict=True) if not why]
        if not right:
            known = max(range(len(meant)), key=lambda number: len(meant[number].fields.keys() & found.keys()))
            raise ValueError(wrong[known])
        if any(other != right[0] for other in right):
            raise ValueError(_disagreement(found, self._kinds))
        return right[0]


@lru_cache(maxsize=64)
def words_asked(schema: str) -> tuple[str, ...]:
    """The words that the form's `asked` allows as an answer; empty if the answer is not a word."""
    found = json.loads(schema) if schema else {}
    return tuple(found["enum"]) if found.get("type") == "string" else ()


def _word(text: str, known: Sequence[str]) -> str:
    """The word that `text` is; case, quotes and a full stop are ignored."""
    if text.strip() in known:
        return text.strip()
    bare = text.strip(_AROUND).casefold()
    for word in known:
        if bare == word.strip(_AROUND).casefold():
            return word
    raise ValueError(f"{text.strip()!r} is not one of these words: {', '.join(known)}")


def _disagreement(found: Values, kinds: Sequence[ObjectForm]) -> str:
    """The reason for values that match none, or several, of the forms."""
    names = dict.fromkeys(name for kind in kinds for name in kind.given)
    told = next((name for name in names if all(name in kind.given for kind in kinds)), None)
    if told is None:
        return f"it matches several of the {len(kinds)} forms, or none"
    known = [kind.given[told] for kind in kinds]
    return (
        f"{told}: {found[told]!r} is not one of {known}"
        if told in found
        else f"{told} must be one of {known}"
    )


def refused(why: str, kind: type[ActionError] = StepError) -> ActionError:
    """The error of a step that the environment refused; `why` is shortened, because the model reads it.

    Args:
        kind: `ActionError` if the action has not reached the environment.
    """
    return kind("The environment refused the action", why=_shortened(why))


def _shortened(why: str) -> str:
    why = " ".join(writable(why).split())
    return why if len(why) <= _MOST else f"{why[:_MOST]} ..."
