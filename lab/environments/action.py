"""An ActionForm: what an environment's actions are made of, and how a model's text becomes one.

It owns the reading: an action with one text is filled with the answer, any other is asked for as JSON,
repaired, and checked against the schema. Any text is either an action or an ActionError that says why not.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from lab.environments.foreign import raised
from lab.errors import EnvError, LabError

Schema = Mapping[str, Any]
"""A JSON Schema."""

Values = dict[str, Any]
"""An action as the environment takes it."""

Parse = Callable[[str, dict[str, Any]], Any]
"""A project's own way to read an answer: text and schema in, the action's fields out."""

TOOL_CALL: Schema = {
    "type": "object",
    "properties": {
        "type": {"const": "call_tool"},
        "tool_name": {"type": "string", "description": "Name of the tool to call"},
        "arguments": {"type": "object", "description": "Arguments of the tool"},
    },
    "required": ["tool_name", "arguments"],
}
"""The action of OpenEnv's environments of MCP tools, which publish one without fields."""

_LIMITS = ("enum", "pattern", "minLength", "maxLength", "format", "anyOf")
"""What a schema may ask of a text."""

_MOST = 300
"""Characters of a reason: the model reads it."""

_DEEPEST = 100
"""Levels of an action: what is nested deeper can neither be checked nor sent on everywhere."""

_LONGEST_REPAIR, _MOST_BRACES = 20_000, 200
"""Characters and opening braces of a broken answer that is repaired: beyond them it takes minutes."""


class ActionError(LabError):
    """A text that is no action of the environment: a step's error, and no failure of the episode."""


class StepError(ActionError):
    """The environment raised at an action, and may have taken half of it."""


@dataclass(frozen=True)
class Action:
    """An action, and how it is shown to people and to the model."""

    values: Values
    shown: str


@dataclass(frozen=True)
class ActionForm:
    """The form of one environment's actions.

    Attributes:
        schema: of its action, as the environment publishes it.
        parse: reads an answer in place of the rules here.
        check: further rules of the environment's own; raises ValueError.
    """

    schema: Schema
    parse: Parse | None = None
    check: Callable[[Values], None] = field(default=lambda _: None)

    @cached_property
    def fields(self) -> dict[str, Any]:
        """What the model decides on: without metadata, and without what can only be one value."""
        found = self._whole.get("properties", {})
        return {name: rule for name, rule in found.items() if name not in self._given}

    @cached_property
    def text_field(self) -> str | None:
        """The one text that an action is; None where it is more, or something else."""
        if len(self.fields) != 1:
            return None
        name, rule = next(iter(self.fields.items()))
        kinds = [option.get("type") for option in rule.get("anyOf", [rule])]
        return name if "string" in kinds and set(kinds) <= {"string", "null"} else None

    @cached_property
    def asked(self) -> str:
        """The JSON Schema of what the model is asked for; empty where it is asked for plain text."""
        if self.parse is not None or self.text_field is not None:
            return ""
        required = [name for name in self._whole.get("required", []) if name in self.fields]
        asked = {"type": "object", "properties": self.fields, "required": required}
        asked |= {key: self._whole[key] for key in ("anyOf", "$defs") if key in self._whole}
        return json.dumps(_without_titles(asked), ensure_ascii=False, separators=(",", ":"))

    @property
    def calls_tools(self) -> bool:
        """Whether an action is the call of a tool, as in OpenEnv's environments of MCP tools."""
        return set(self.fields) >= {"tool_name", "arguments"}

    def with_tools(self, tools: Sequence[Mapping[str, Any]]) -> "ActionForm":
        """The same, for calls of these tools alone: each with its name, description and input schema."""
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
        """The action that `text` is.

        Raises:
            ActionError: it is none; its `why` is for the model as well.
            EnvError: the environment's schema is none.
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
        except BaseException as error:  # of the project's own code, which may call sys.exit
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
        except RecursionError:  # of a schema that refers to itself
            raise _no_action("its JSON is nested too deeply") from None
        except Exception as error:  # whatever a foreign schema makes the library raise
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
        return kind(self._whole, registry=Registry())  # else a foreign schema could have it fetch any URL


def _json_object(text: str) -> Values:
    """The JSON object in `text`, which may be broken, fenced, or among other words; of several the last."""
    import json_repair

    try:
        found = (_whole_object(text) or json_repair.loads(_repairable(text))) if "{" in text else None
    except ActionError:
        raise
    except Exception as error:  # RecursionError, and what else a repair can run into
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
    """The last JSON object in `text`, where none is broken: what needs no repair is taken to the letter."""
    found, at = None, text.find("{")
    while at >= 0:
        try:
            found, end = json.JSONDecoder().raw_decode(text, at)
        except json.JSONDecodeError:
            return None
        at = text.find("{", end)
    return found


def _clean(found: dict[Any, Any]) -> Values:
    """The same as plain JSON: no NaN, and no lone surrogate, which could be neither sent on nor written."""
    if _is_deep(found, _DEEPEST):
        raise _no_action(f"its JSON is nested more than {_DEEPEST} levels deep")
    try:
        text = json.dumps(found, ensure_ascii=False, allow_nan=False)
        # By way of UTF-16, in which two surrogates that the repair left apart become the character they are.
        cleaned: Values = json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    except (ValueError, TypeError, RecursionError) as error:
        raise _no_action(f"it is no JSON: {error}") from error
    return cleaned


def _is_deep(value: object, levels: int) -> bool:
    """Whether a JSON value has more than so many levels."""
    if not isinstance(value, dict | list | tuple):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deep(one, levels - 1) for one in inner)


def _without_titles(schema: Any) -> Any:  # noqa: ANN401  # of JSON
    """Pydantic titles every field with its own name: words that say nothing, and cost tokens."""
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
    """The error of a step at which the environment raised; `why` is shortened, since the model reads it."""
    return StepError("The environment refused the action", why=_shortened(why))


def _no_action(why: str) -> ActionError:
    return ActionError("The answer is no action", why=_shortened(why))


def _shortened(why: str) -> str:
    why = " ".join(why.encode("utf-8", "replace").decode("utf-8").split())
    return why if len(why) <= _MOST else f"{why[:_MOST]} ..."
