"""The action classes of an in-process environment: a Pydantic model, or a union of several."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, get_args, get_origin, get_type_hints

from lab.environments.foreign import ForeignError, foreign, raised
from lab.environments.schema import Schema, options
from lab.errors import ConfigError

ROOT = "root"
"""Field of an action that is not an object, such as a root model of a text or a list."""


def action_classes(environment: object, python: str) -> list[Any]:
    """The action's class, or the classes of a union: the Environment's type argument, else step's annotation.

    Args:
        python: The declaration's import path.

    Raises:
        ConfigError: It declares no action class.
    """
    from openenv.core.env_server.interfaces import Environment
    from openenv.core.env_server.mcp_environment import MCPEnvironment
    from openenv.core.env_server.mcp_types import CallToolAction
    from openenv.core.env_server.types import Action

    named = list[Any]()
    for cls in type(environment).__mro__:
        for base in getattr(cls, "__orig_bases__", ()):
            if inspect.isclass(get_origin(base)) and issubclass(get_origin(base), Environment):
                named += get_args(base)[:1]
    with suppress(Exception):  # an annotation may name something that does not exist at run time
        named += [_annotated(type(environment))]
    for one in named:
        if own := [cls for cls in _classes(one) if _is_model(cls) and cls is not Action]:
            return own
    if isinstance(environment, MCPEnvironment):
        return [CallToolAction]
    do = "annotate its step's first argument with a subclass of OpenEnv's Action, or of Pydantic's BaseModel"
    raise ConfigError("The environment declares no action class.", where=python, do=do)


def action_schema(classes: Sequence[Any], python: str) -> Schema:
    """The JSON Schema of an action of one of the classes.

    Raises:
        ConfigError: A class has no JSON Schema.
    """
    try:
        with foreign():
            schemas = [_object_schema(cls) for cls in classes]
    except ForeignError as error:
        what, do = "The environment's action has no JSON Schema.", "use field types that JSON supports"
        raise ConfigError(what, where=python, why=str(error), do=do) from error
    defs = {name: one for schema in schemas for name, one in schema.pop("$defs", {}).items()}
    return {**schemas[0], "$defs": defs} if len(schemas) == 1 else {"anyOf": schemas, "$defs": defs}


def made_action(classes: Sequence[Any], values: Mapping[str, Any]) -> Any:  # noqa: ANN401  # of foreign code
    """The action with these values.

    Raises:
        ValueError: None of the classes accepts them; the reason is that of the last one.
    """
    *others, last = classes
    for cls in others:
        with suppress(ValueError):
            return _made(cls, values)
    return _made(last, values)


def _made(cls: Any, values: Mapping[str, Any]) -> Any:  # noqa: ANN401
    try:
        return cls.model_validate(values[ROOT] if _is_bare(cls) else values)
    except ValueError:
        raise
    except BaseException as error:  # of foreign code: an action's class may have validators
        raise ValueError(raised(error)) from error


def _classes(annotation: Any) -> Iterator[Any]:  # noqa: ANN401  # of types
    """The classes in an annotation: of a union, all of them."""
    if inspect.isclass(annotation) and not get_args(annotation):
        yield annotation
    for one in get_args(annotation):
        yield from _classes(one)


def _is_model(cls: Any) -> bool:  # noqa: ANN401
    return all(callable(getattr(cls, name, None)) for name in ("model_validate", "model_json_schema"))


@lru_cache(maxsize=64)  # a schema takes longer to make than an action
def _is_bare(cls: Any) -> bool:  # noqa: ANN401
    """Whether its actions are not objects."""
    return not any(one.get("type", "object") == "object" for one in options(cls.model_json_schema()))


def _object_schema(cls: Any) -> dict[str, Any]:  # noqa: ANN401
    schema: dict[str, Any] = cls.model_json_schema()
    if not _is_bare(cls):
        return schema
    inner = {name: one for name, one in schema.items() if name != "$defs"}
    whole = {"type": "object", "properties": {ROOT: inner}, "required": [ROOT]}
    return {**whole, "$defs": schema.get("$defs", {})}


def _annotated(cls: Any) -> Any:  # noqa: ANN401  # a class, and what annotates its step's first argument
    hints = get_type_hints(cls.step, include_extras=True)
    return hints[list(inspect.signature(cls.step).parameters)[1]]
