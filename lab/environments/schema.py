"""The JSON Schemas that environments publish: references, unions, and the text for a model."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]
"""A JSON Schema; its references point into its own `$defs`."""

_DEFS = ("$defs", "definitions")

_MOST_HOPS = 20
"""Maximum references to references: one may point to itself."""


def resolved(schema: Schema) -> Schema:
    """The schema that a reference names, with the same `$defs`; any other schema is returned as it is."""
    for _ in range(_MOST_HOPS):
        reference, together = schema.get("$ref"), schema.get("allOf")
        if isinstance(reference, str) and reference.startswith("#/"):
            target = _at(schema, reference)
        elif isinstance(together, list) and len(together) == 1:  # a reference with a default
            target = together[0]
        else:
            return schema
        if not isinstance(target, Mapping):
            return schema
        schema = {**target, **{name: one for name, one in schema.items() if name not in ("$ref", "allOf")}}
    return schema


def _at(schema: Schema, reference: str) -> object:
    target: object = schema
    for part in reference[2:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        target = target.get(name) if isinstance(target, Mapping) else None
    return target


def options(schema: Schema) -> list[Schema]:
    """The alternatives of a schema: those of a union, also of nested ones, else the schema itself."""
    return list(_options(schema, _MOST_HOPS))


def _options(schema: Schema, hops: int) -> Iterator[Schema]:
    schema = resolved(schema)
    union = schema.get("oneOf") or schema.get("anyOf")
    if not isinstance(union, list) or not hops or "properties" in schema:
        kinds = schema.get("type")
        yield from ({**schema, "type": kind} for kind in kinds) if isinstance(kinds, list) else [schema]
        return
    defs = {name: schema[name] for name in _DEFS if name in schema}
    for one in union:
        if isinstance(one, Mapping):
            yield from _options({**one, **defs}, hops - 1)


def words(schema: Schema) -> list[str]:
    """The texts that a schema allows, without null; empty if it allows any other value."""
    found = list[str]()
    for option in options(schema):
        allowed = [option["const"]] if "const" in option else option.get("enum", [])
        allowed = [one for one in allowed if one is not None]
        if option.get("type") != "null" and not (allowed and all(isinstance(one, str) for one in allowed)):
            return []
        found += allowed
    return list(dict.fromkeys(found))


def is_text(schema: Schema) -> bool:
    """Whether every value is a text, or null."""
    kinds = {option.get("type", "string" if words(option) else None) for option in options(schema)}
    return "string" in kinds and kinds <= {"string", "null"}


def only_value(schema: Schema) -> list[Any]:
    """The only value that a schema allows, in a list; empty if it allows several."""
    found = resolved(schema)
    if "const" in found:
        return [found["const"]]
    allowed = found.get("enum", [])
    return allowed if len(allowed) == 1 else []


def compact(schema: Schema) -> str:
    """The schema for a model: without titles and unused definitions."""
    shown = _without_titles({name: one for name, one in schema.items() if name not in _DEFS})
    defs = {name: _without_titles(one) for part in _DEFS for name, one in schema.get(part, {}).items()}
    text, used = json.dumps(shown, ensure_ascii=False), set[str]()
    while named := {name for name in defs.keys() - used if f'/{name}"' in text}:
        text, used = json.dumps([defs[name] for name in named], ensure_ascii=False), used | named
    if used:
        shown["$defs"] = {name: one for name, one in defs.items() if name in used}
    return json.dumps(shown, ensure_ascii=False, separators=(",", ":"))


def _without_titles(schema: Any) -> Any:  # noqa: ANN401  # of JSON
    """Remove Pydantic's titles, which only repeat the fields' names and cost tokens."""
    if isinstance(schema, list):
        return [_without_titles(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = [name for name, one in schema.items() if name != "title" or not isinstance(one, str)]
    return {name: _without_titles(schema[name]) for name in kept}
