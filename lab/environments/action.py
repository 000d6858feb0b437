"""An ActionForm: the fields of an environment's actions, and how a model's text becomes an action.

It owns the parsing: an action with one text field is the answer itself; any other is requested as JSON,
repaired, and validated against the schema. Every text yields an action or an ActionError with the reason.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from lab.environments.foreign import raised
from lab.environments.schema import Schema
from lab.errors import EnvError, LabError

Values = dict[str, Any]
"""An action's fields, as the environment accepts them."""

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

_LIMITS = ("enum", "pattern", "minLength", "maxLength", "format", "anyOf")
"""Schema keywords that constrain a text."""

_MOST = 300
"""Maximum length of a reason, which the model reads."""

_DEEPEST = 100
"""Maximum nesting of an action: deeper JSON cannot always be validated or sent."""

_LONGEST_REPAIR, _MOST_BRACES = 20_000, 200
"""Maximum length and opening braces of a malformed answer: a longer one takes minutes to repair."""


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
    check: Callable[[Values], None] = field(default=lambda _: None)

    @cached_property
    def fields(self) -> dict[str, Any]:
        """The fields that the model chooses: without metadata and constants."""
        found = self._whole.get("properties", {})
        return {name: rule for name, rule in found.items() if name not in self._given}

    @cached_property
    def text_field(self) -> str | None:
        """The name of the only field, if it is a text; otherwise None."""
        if len(self.fields) != 1:
            return None
        name, rule = next(iter(self.fields.items()))
        kinds = [option.get("type") for option in rule.get("anyOf", [rule])]
        return name if "string" in kinds and set(kinds) <= {"string", "null"} else None

    @cached_property
    def asked(self) -> str:
        """The JSON Schema requested from the model; empty for plain text."""
        if self.parse is not None or self.text_field is not None:
            return ""
        required = [name for name in self._whole.get("required", []) if name in self.fields]
        asked = {"type": "object", "properties": self.fields, "required": required}
        asked |= {key: self._whole[key] for key in ("anyOf", "$defs") if key in self._whole}
        return json.dumps(_without_titles(asked), ensure_ascii=False, separators=(",", ":"))

    @property
    def calls_tools(self) -> bool:
        """Whether an action is a tool call, as in OpenEnv's MCP environments."""
        return set(self.fields) >= {"tool_name", "arguments"}

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
        if self.parse is not None:
            return self._checked(self._parsed(self.parse, text), text)
        if self.text_field is not None:
            return self._checked({self.text_field: text}, text)
        found = _json_object(text)
        return self._checked(found, json.dumps(found, ensure_ascii=False, separators=(",", ":")))

    @cached_property
    def _whole(self) -> dict[str, Any]:
        properties = dict(self.schema.get("properties", {}))
        properties.pop("metadata", None)
        return {**self.schema, "properties": properties} if properties else dict(TOOL_CALL)

    @cached_property
    def _given(self) -> Values:
        properties = self._whole.get("properties", {})
        return {name: rule["const"] for name, rule in properties.items() if "const" in rule}

    @cached_property
    def _is_any_text(self) -> bool:
        rule = self.fields.get(self.text_field or "", {})
        return self.text_field is not None and not any(limit in rule for limit in _LIMITS)

    def _parsed(self, parse: Parse, text: str) -> Values:
        try:
            found = parse(text, json.loads(json.dumps(self.schema)))
        except BaseException as error:  # of the project's code, which may call sys.exit
            why = str(error) if isinstance(error, ValueError) else raised(error)
            raise _no_action(why) from error
        if not isinstance(found, dict):
            raise _no_action(f"parse gave {type(found).__name__}, and no dict")
        return _clean(found)

    def _checked(self, found: Values, shown: str) -> Action:
        values = {**found, **self._given}
        if not self._is_any_text or self.parse is not None:
            self._check_schema(values)
        try:
            self.check(values)
        except ValueError as error:
            raise _no_action(str(error)) from error
        return Action(values, shown)

    def _check_schema(self, values: Values) -> None:
        import jsonschema

        try:
            found = jsonschema.exceptions.best_match(self._validator.iter_errors(values))
        except RecursionError:  # a self-referencing schema
            raise _no_action("its JSON is nested too deeply") from None
        except Exception as error:  # a foreign schema may make the library raise anything
            what = "The environment's action schema cannot be used."
            raise EnvError(what, why=f"{type(error).__name__}: {error}") from error
        if found is not None:
            where = ".".join(map(str, found.absolute_path))
            raise _no_action(f"{where}: {found.message}" if where else found.message)

    @cached_property
    def _validator(self) -> Any:  # noqa: ANN401  # the library carries no types
        import jsonschema
        from referencing import Registry

        kind = jsonschema.validators.validator_for(self._whole, jsonschema.Draft202012Validator)
        return kind(self._whole, registry=Registry())  # else a foreign schema could fetch any URL


def _json_object(text: str) -> Values:
    """The last JSON object in `text`, which may be malformed, fenced, or surrounded by other text."""
    import json_repair

    try:
        found = (_whole_object(text) or json_repair.loads(_repairable(text))) if "{" in text else None
    except ActionError:
        raise
    except Exception as error:  # RecursionError, or anything else that the repair raises
        raise _no_action(f"its JSON cannot be read: {type(error).__name__}") from error
    if isinstance(found, list):
        found = next((one for one in reversed(found) if isinstance(one, dict)), None)
    if not isinstance(found, dict):
        raise _no_action("there is no JSON object in it")
    return _clean(found)


def _repairable(text: str) -> str:
    if len(text) > _LONGEST_REPAIR or text.count("{") > _MOST_BRACES:
        raise _no_action("its JSON is broken, and too long to be repaired")
    return text


def _whole_object(text: str) -> Values | None:
    """The last JSON object in `text`, if all are well-formed: those are read without repair."""
    found, at = None, text.find("{")
    while at >= 0:
        try:
            found, end = json.JSONDecoder().raw_decode(text, at)
        except json.JSONDecodeError:
            return None
        at = text.find("{", end)
    return found


def _clean(found: dict[Any, Any]) -> Values:
    """The same as plain JSON, without NaN and lone surrogates, which could be neither sent nor written."""
    if _is_deep(found, _DEEPEST):
        raise _no_action(f"its JSON is nested more than {_DEEPEST} levels deep")
    try:
        text = json.dumps(found, ensure_ascii=False, allow_nan=False)
        # Through UTF-16, which joins two surrogates that the repair left apart into one character.
        cleaned: Values = json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    except (ValueError, TypeError, RecursionError) as error:
        raise _no_action(f"it is no JSON: {error}") from error
    return cleaned


def _is_deep(value: object, levels: int) -> bool:
    """Whether a JSON value is nested deeper than `levels`."""
    if not isinstance(value, dict | list | tuple):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deep(one, levels - 1) for one in inner)


def _without_titles(schema: Any) -> Any:  # noqa: ANN401  # of JSON
    """Remove Pydantic's titles, which only repeat the fields' names and cost tokens."""
    match schema:
        case dict():
            kept = {
                name: value
                for name, value in schema.items()
                if not (name == "title" and isinstance(value, str))
            }
            return {name: _without_titles(value) for name, value in kept.items()}
        case list():
            return [_without_titles(one) for one in schema]
    return schema


def refused(why: str) -> StepError:
    """The error of a step in which the environment raised; `why` is shortened, because the model reads it."""
    return StepError("The environment refused the action", why=_shortened(why))


def _no_action(why: str) -> ActionError:
    return ActionError("The answer is no action", why=_shortened(why))


def _shortened(why: str) -> str:
    why = " ".join(why.encode("utf-8", "replace").decode("utf-8").split())
    return why if len(why) <= _MOST else f"{why[:_MOST]} ..."
