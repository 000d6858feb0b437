"""A JSON Schema as environments publish it: references followed, unions taken apart."""

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
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return schema
        target: Any = schema
        for part in reference[2:].split("/"):
            target = (
                target.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(target, dict) else None
            )
        if not isinstance(target, Mapping):
            return schema
        beside = {name: one for name, one in schema.items() if name != "$ref"}
        schema = {**target, **beside}
    return schema


def options(schema: Schema) -> list[Schema]:
    """The schemas of which a value keeps one: a union's, also a nested one's, else the schema itself."""
    return list(_options(schema, _MOST_HOPS))


def _options(schema: Schema, hops: int) -> Iterator[Schema]:
    schema = resolved(schema)
    union = schema.get("oneOf") or schema.get("anyOf")
    if not isinstance(union, list) or not hops or "properties" in schema:
        yield schema
        return
    defs = {name: schema[name] for name in _DEFS if name in schema}
    for one in union:
        if isinstance(one, Mapping):
            yield from _options({**one, **defs}, hops - 1)
