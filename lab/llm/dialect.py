"""The Dialect: what requests to an endpoint may hold, stated in `[model]` or learnt from what it refuses.

It owns how a refusal that names its cause changes the dialect, and what to try if it names none. The request
in a dialect is `lab.llm.request`'s; when something is tried is `lab.llm.learning`'s.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args, get_type_hints

from lab.errors import ConfigError, plain, unknown_key
from lab.llm.refusal import Refusal

TokenLimit = Literal["max_tokens", "max_completion_tokens"]
SystemPlace = Literal["system", "user"]
SchemaForm = Literal["response_format", "tools", "none"]
Thinking = Literal["marked", "unopened"]


@dataclass(frozen=True)
class Dialect:
    """What a request may hold; the defaults are OpenAI's.

    Attributes:
        token_limit: Name of the limit on an answer's tokens, thinking included.
        system: Where the system text goes: a message of its role, or the head of the first user message.
        alternate: Whether consecutive messages of one role are joined, because roles must alternate.
        schema: How an action's JSON Schema is sent: as `response_format`, as the only one of `tools`, or not.
        omit: Settings that are never sent.
        thinking: Whether thinking is marked as such, or answers begin inside it, without an opening tag.
        path: Path that is added to the base URL.
    """

    token_limit: TokenLimit = "max_tokens"
    system: SystemPlace = "system"
    alternate: bool = False
    schema: SchemaForm = "response_format"
    omit: tuple[str, ...] = ()
    thinking: Thinking = "marked"
    path: str = ""

    def __str__(self) -> str:
        """The differences from OpenAI's, for people."""
        said = [
            f"{self.token_limit} as token limit" if self.token_limit != OPENAI.token_limit else "",
            "system text in the first user message" if self.system == "user" else "",
            "alternating roles" if self.alternate else "",
            {"tools": "schema as a tool", "none": "no schema"}.get(self.schema, ""),
            f"without {', '.join(self.omit)}" if self.omit else "",
            "answers begin with thinking" if self.thinking == "unopened" else "",
            f"{self.path} added to the address" if self.path else "",
        ]
        return "; ".join(filter(None, said)) or "as OpenAI's"

    def without(self, names: Collection[str]) -> "Dialect":
        """The dialect without these settings too."""
        return replace(self, omit=tuple(dict.fromkeys([*self.omit, *names])))

    def as_table(self) -> dict[str, Any]:
        """The values that differ from OpenAI's, for a TOML or JSON file."""
        differing = {name: one for name, one in asdict(self).items() if one != getattr(OPENAI, name)}
        return {name: list(one) if isinstance(one, tuple) else one for name, one in differing.items()}

    @classmethod
    def from_table(cls, table: Mapping[str, Any], where: str = "dialect") -> "Dialect":
        """The inverse of `as_table`.

        Raises:
            ConfigError: A key is unknown, or a value is not allowed.
        """
        hints = get_type_hints(cls)
        for name, value in table.items():
            if name not in hints:
                raise unknown_key(name, hints, where=f"{where}.{name}")
            allowed = get_args(hints[name]) if name not in ("omit", "alternate", "path") else ()
            if allowed and value not in allowed:
                do = f"use one of {', '.join(allowed)}"
            elif name == "alternate" and not isinstance(value, bool):
                do = "use true or false"
            elif name == "path" and not (isinstance(value, str) and re.fullmatch(r"(/[\w.-]+)*", value)):
                do = "use a path such as /v1"
            elif name == "omit" and not _is_names(value):
                do = "use a list of settings' names"
            else:
                continue
            raise ConfigError(f"{name} is {value!r}.", where=f"{where}.{name}", do=do)
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
        return cls(**values)


OPENAI = Dialect()

SYSTEM, ROLES = "system", "roles"
"""Features of a request: a message of the role system; consecutive messages of one role.

The others are settings, by their names in `SamplingParams`, and forms of a schema."""

SCHEMAS = ("response_format", "tools")
LIMITS = ("max_tokens", "max_completion_tokens")

_NAMES = {
    SYSTEM: r"(?:system|developer)\W+(?:role|message|prompt|instruction)|role\W+(?:\w+\W+)?system|only user",
    "response_format": r"response_format|json_schema|structured output|guided|grammar",
    "tools": r"tools?|function_call(?:ing)?|tool_choice",
    ROLES: r"alternat",
}
"""Patterns of the features that endpoints call by several names."""

_REFUSING = (
    r"support|unknown|unrecogni|unexpected|not (?:permitted|allowed|enabled|available|implemented)"
    r"|extra_forbidden|deprecated|only the default|failed to|alternat|argument|parameter"
)
_OF_VALUE = (
    r"must be|at most|at least|less than|greater than|between|range|maximum|minimum|[<>]=?"
    r"|too (?:large|small|high|low)"
)
_WHOLLY = r"unsupported_parameter|not support|extra_forbidden"


def learnt(
    dialect: Dialect, features: Collection[str], told: Refusal, gone: Collection[str]
) -> Dialect | None:
    """The dialect after a refusal; None if it names none of the request's features.

    Args:
        features: Those of the refused request which the endpoint has not accepted before.
        gone: Features that it has refused before.
    """
    name = _named(features, told)
    if name is None:
        return None
    if name in LIMITS:
        other: TokenLimit = "max_tokens" if name == "max_completion_tokens" else "max_completion_tokens"
        return dialect.without(["max_tokens"]) if other in gone else replace(dialect, token_limit=other)
    if name == SYSTEM:
        return replace(dialect, system="user")
    if name == ROLES:
        return replace(dialect, alternate=True) if ROLES in features else replace(dialect, system="user")
    if name in SCHEMAS:
        return replace(dialect, schema="none")
    return dialect.without([name])


def changed(dialect: Dialect, why: str) -> str:
    """The sentence for people when the dialect has changed, because the endpoint said `why`."""
    return f"Requests are adapted to the endpoint ({plain(why)}): {dialect}."


def is_of_value(told: Refusal) -> bool:
    """Whether a refusal is about a value that is out of range, and not about the parameter itself."""
    return bool(re.search(_OF_VALUE, told.words)) and not re.search(_WHOLLY, told.words)


def plainer(dialect: Dialect, features: Collection[str], told: Refusal) -> Iterator[Dialect]:
    """Dialects of plainer requests, to be tried one after the other if a refusal names no cause.

    An error of the server may be an outage, so only the features that it may be about are left out.
    """
    base = dialect
    if any(name in SCHEMAS for name in features):
        yield (base := replace(base, schema="none"))
    if SYSTEM in features:
        yield replace(base, system="user", alternate=True)
    others = [name for name in features if name not in (SYSTEM, ROLES, *SCHEMAS, *LIMITS)]
    if told.status < 500:
        yield from (dialect.without([name]) for name in others)
        if len(others) > 1:
            yield dialect.without(others)


def _named(features: Collection[str], told: Refusal) -> str | None:
    """The feature that a refusal is about: the one of its `param`, else the first in its words."""
    words = told.words
    if is_of_value(told) or not (re.search(_REFUSING, words) or told.param):
        return None
    for text in filter(None, (told.param, words)):
        places = {
            name: found.start() for name in (*features, ROLES) if (found := _pattern(name).search(text))
        }
        if ROLES in places and (ROLES in features or SYSTEM in features):
            return ROLES
        places.pop(ROLES, None)
        if places:
            return min(places, key=lambda name: places[name])
    return SYSTEM if SYSTEM in features and re.search(r"messages?\W*0?\W*role", told.param) else None


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(_NAMES.get(name, rf"\b{re.escape(name.removeprefix('extra.').lower())}\b"))


def _is_names(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, str) and one for one in value)
