"""An example: the smallest value that a JSON Schema allows, as far as its types say."""

import json
from numbers import Real
from typing import Any

from lab.environments.action import ActionForm
from lab.environments.schema import Schema, options

_DEEPEST = 8
"""Maximum nesting: a schema may refer to itself."""

_TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": Real}

TEXT = "Hello."
"""The example of a text."""


def example_answer(form: ActionForm) -> str:
    """An answer that parses to one of the form's actions, unless its schema limits more than types."""
    if form.text_field is not None:
        return form.words[0] if form.words else TEXT
    return json.dumps(example(json.loads(form.asked)), ensure_ascii=False) if form.asked else "{}"


def example(schema: Schema, levels: int = _DEEPEST) -> Any:  # noqa: ANN401  # of JSON
    """A value of the schema."""
    defs = {"$defs": schema.get("$defs", {})}
    chosen: Any = next((one for one in options(schema) if one.get("type") != "null"), {"type": "null"})
    const, default = [chosen.get("const")], [chosen.get("default")]
    for allowed in (const, chosen.get("examples"), chosen.get("enum"), default):
        if allowed and allowed[0] is not None and _is_of(chosen.get("type"), allowed[0]):
            return allowed[0]
    if not levels:
        return None
    match chosen.get("type", "object" if "properties" in chosen else None):
        case "object":
            forms = chosen.get("anyOf") or chosen.get("oneOf") or [{}]
            rules = {**chosen.get("properties", {}), **forms[0].get("properties", {})}
            wanted = [*chosen.get("required", []), *forms[0].get("required", [])]
            chosen_names = wanted or [*rules]  # where all are optional, an empty action says little
            return {name: example({**rules.get(name, {}), **defs}, levels - 1) for name in chosen_names}
        case "array":
            inner = example({**chosen.get("items", {}), **defs}, levels - 1)
            return [inner] * max(1, chosen.get("minItems", 1))
        case "integer" | "number" as kind:
            least = chosen.get("minimum", chosen.get("exclusiveMinimum", 0) + 1)
            whole = kind == "integer" and isinstance(least, float) and least.is_integer()
            return int(least) if whole else least
        case "boolean":
            return False
        case "string":
            return TEXT.ljust(chosen.get("minLength", 0), ".")[: chosen.get("maxLength")]
    return None


def _is_of(kind: object, value: object) -> bool:
    """Whether a value has the type that its schema names; a schema's own default may have another."""
    return not isinstance(kind, str) or isinstance(value, _TYPES.get(kind, object))
