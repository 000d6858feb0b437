"""An HttpForm: how to call `/reset`, `/step` and `/state` of an environment's own HTTP application.

It is read from the server's OpenAPI document, which FastAPI publishes: most public submissions have their own
application, and each has its own form of a step. The calls may stand below a prefix (`/env/step`), and have
arguments in their paths (`/step/{session_id}`).
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from lab.environments.schema import Schema, options, resolved
from lab.environments.task_list import SESSION_KEYS, TASK_ARGUMENTS

_WRAPPER = "action"
"""The field that holds the action in OpenEnv's form of a step."""

_CONTROL = "Environment Control"
"""OpenEnv's tag for `/reset` and `/step`."""

_TITLE_0_1 = "Environment HTTP Server"
"""OpenEnv 0.1's title of its application."""

_CALL = re.compile(r"(?P<prefix>(/[^/{]+)*)(/\{[^/]+\})*/(?P<name>reset|step|state|grader?)(/\{[^/]+\})*/?")
"""The path of a call, with arguments before and after its name."""

_ANSWERED_KEYS = ("env_id", "game_id", "run_id", "instance_id", "match_id", "rollout_id", "sid")
"""Identifiers of the episode, if reset does not take them: there they may mean a kind of environment."""


@dataclass(frozen=True)
class Request:
    """A call with its arguments, each at its place."""

    method: str
    path: str
    query: Mapping[str, Any]
    headers: Mapping[str, str]
    body: Mapping[str, Any] | None


@dataclass(frozen=True)
class Operation:
    """A call of an application.

    Attributes:
        path: Path of its URL; a name in braces stands for an argument.
        named: Schemas of its arguments, by name.
        required: Names of the required arguments.
        query: Names of the arguments in the URL's query.
        within: Names of the arguments in the path.
        headers: Names of the headers that identify the episode, by the argument that they stand for.
        body: Schema of its JSON body; empty without one, or if it is not published.
        open: Whether it accepts other arguments.
        answer: Schema of its answer; empty if it is not published.
    """

    method: str
    path: str
    named: Mapping[str, Any]
    required: tuple[str, ...]
    query: frozenset[str]
    within: frozenset[str]
    headers: Mapping[str, str]
    body: Schema
    open: bool
    answer: Schema

    def request(self, values: Mapping[str, Any]) -> Request:
        """The call with these arguments.

        Raises:
            ValueError: One of the path is missing, or is no segment of a path.
        """
        path = self.path
        for name in self.within:
            if name not in values:
                raise ValueError(f"{self.path} requires {name}")
            segment = values[name] if isinstance(values[name], str) else json.dumps(values[name])
            if segment in ("", ".", ".."):
                raise ValueError(f"{name} is {segment!r}, which {self.path} cannot hold")
            path = path.replace(f"{{{name}}}", quote(segment, safe=""))
        headers = {header: str(values[name]) for name, header in self.headers.items() if name in values}
        rest = {name: one for name, one in values.items() if name not in (*self.within, *self.headers)}
        query = {name: one for name, one in rest.items() if name in self.query or self.method == "GET"}
        body = {name: one for name, one in rest.items() if name not in query}
        return Request(self.method, path, query, headers, None if self.method == "GET" else body)


@dataclass(frozen=True)
class HttpForm:
    """How to reset and to step, and what an action is.

    Attributes:
        prefix: What precedes the names of the calls in their paths; mostly empty.
        state: The call that returns the environment's state; None without one.
        grader: The call that returns the score of the episode so far; None without one, or if it requires
            what no session knows.
        action: Schema of an action's values; empty if the server does not publish it.
        wrapped: Whether the values are sent as the field `action`, not as the body itself.
        session_key: Argument that identifies the episode; empty if the server plays one at a time.
        shared: Arguments that choose the task, or are in the path of a step, and that a later call takes as
            well as reset.
        stateless: Whether each request has a separate environment, as in OpenEnv's own HTTP.
        older: Whether it is OpenEnv 0.1, which has one environment and may not publish its actions.
    """

    prefix: str
    reset: Operation
    step: Operation
    state: Operation | None
    grader: Operation | None
    action: Schema
    wrapped: bool
    session_key: str
    shared: tuple[str, ...]
    stateless: bool
    older: bool

    @property
    def concurrent(self) -> bool:
        """Whether episodes have identifiers: reset takes one, or gives one that each step requires."""
        answered = (*self.step.required, *self.step.headers)
        return self.session_key in self.reset.named or self.session_key in answered


def read_http_form(document: object, published: Schema | None) -> HttpForm | None:
    """The form in an OpenAPI document; None if it has no `/reset` and `/step`.

    Args:
        published: The action's schema from `/schema`, which takes precedence if it says anything.
    """
    if not isinstance(document, dict):
        return None
    read: dict[str, Any] = json.loads(json.dumps(document).replace("#/components/schemas/", "#/$defs/"))
    paths, defs = read.get("paths", {}), read.get("components", {}).get("schemas", {})
    prefix, calls = _calls(paths)
    found = {name: one for name, path in calls.items() if (one := _operation(path, paths, defs))}
    reset, step, state = found.get("reset"), found.get("step"), found.get("state")
    if reset is None or step is None:
        return None
    keys = (*SESSION_KEYS, *(key for key in _ANSWERED_KEYS if key not in reset.named))
    key = next((key for key in keys if key in step.named), "")
    grader = found.get("grader", found.get("grade"))
    later = {**step.named, **(state.named if state else {}), **(grader.named if grader else {})}
    chosen = (*TASK_ARGUMENTS, *sorted(step.within - {key}))
    shared = tuple(name for name in dict.fromkeys(chosen) if name in reset.named and name in later)
    if grader is not None and not set(grader.required) <= {key, *shared}:
        grader = None
    inner = step.named.get(_WRAPPER)
    alone = set(step.required) <= {_WRAPPER, key, *shared}
    wrapped = inner is not None and alone and _holds_objects({**inner, "$defs": defs})
    if published is not None and not _is_empty(published):
        wrapped = (wrapped or step.open) and _WRAPPER not in published.get("properties", {})
        action = published
    elif wrapped and inner is not None:
        action = {**inner, "$defs": defs}
    else:
        action = _flat(step, {key, *shared, *step.headers}, defs)
    stateless = "/mcp" in paths and _CONTROL in str(paths[reset.path])
    older = read.get("info", {}).get("title") == _TITLE_0_1
    wrapped = wrapped or (older and step.open)
    return HttpForm(prefix, reset, step, state, grader, action, wrapped, key, shared, stateless, older)


def _calls(paths: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """The shortest prefix that has both reset and step, and the paths of its calls by name."""
    found = dict[str, dict[str, str]]()
    for path in sorted(paths, key=len):
        if match := _CALL.fullmatch(path):
            found.setdefault(match["prefix"], {}).setdefault(match["name"], path)
    complete = (prefix for prefix, calls in found.items() if {"reset", "step"} <= calls.keys())
    prefix = min(complete, key=lambda one: (one.count("/"), one), default="")
    return prefix, found.get(prefix, {})


def _operation(path: str, paths: Mapping[str, Any], defs: Mapping[str, Any]) -> Operation | None:
    methods = paths.get(path, {})
    method = next((method for method in ("post", "put", "get") if method in methods), None)
    if method is None:
        return None
    found = methods[method]
    declared = [*methods.get("parameters", []), *found.get("parameters", [])]
    parameters = [one for one in declared if one.get("in") in ("query", "path")]
    headers = {
        name: one["name"]
        for one in declared
        if one.get("in") == "header" and (name := _argument(one["name"])) in SESSION_KEYS
    }
    body = _object({**_json_of(found.get("requestBody", {})), "$defs": defs})
    named = {one["name"]: one.get("schema", {}) for one in parameters} | body.get("properties", {})
    headers = {name: header for name, header in headers.items() if name not in named}
    named |= {name: {} for name in headers}
    required = [one["name"] for one in parameters if one.get("required")] + body.get("required", [])
    says_nothing = not named.keys() - headers and options(body) == [body]
    return Operation(
        method.upper(),
        path,
        named,
        tuple(required),
        frozenset(one["name"] for one in parameters if one["in"] == "query"),
        frozenset(one["name"] for one in parameters if one["in"] == "path"),
        headers,
        body,
        method != "get" and (says_nothing or bool(body.get("additionalProperties"))),
        _object({**_json_of(found.get("responses", {}).get("200", {})), "$defs": defs}),
    )


def _argument(header: str) -> str:
    """The argument that a header stands for, such as `session_id` for `X-Session-ID`."""
    return header.lower().removeprefix("x-").replace("-", "_")


def _json_of(message: Mapping[str, Any]) -> Schema:
    """The schema of a request's or an answer's JSON."""
    schema: Schema = message.get("content", {}).get("application/json", {}).get("schema", {})
    return schema


def _object(schema: Schema) -> Schema:
    """The object in a body's schema: an optional body is a union with null."""
    whole = resolved(schema)
    objects = [one for one in options(whole) if one.get("type") != "null"]
    return objects[0] if len(objects) == 1 else whole


def _holds_objects(schema: Schema) -> bool:
    """Whether every value is an object, or may be anything."""
    kinds = [one.get("type", "object") for one in options(schema)]
    return all(kind in ("object", "null") for kind in kinds) and "object" in kinds


def _is_empty(schema: Schema) -> bool:
    """Whether a schema allows only an object of which it names no field."""
    whole = resolved(schema)
    return (
        options(whole) == [whole] and not whole.get("properties") and whole.get("type", "object") == "object"
    )


def _flat(step: Operation, apart: Collection[str], defs: Mapping[str, Any]) -> Schema:
    """The schema of a step whose arguments, without some, are the action itself; empty if none are named."""
    fields = {name: rule for name, rule in step.named.items() if name not in apart}
    if not fields:
        return {} if step.open or step.body.get("properties") else step.body
    required = [name for name in step.required if name in fields]
    return {"type": "object", "properties": fields, "required": required, "$defs": defs}
