"""A Server: the kind of server at an environment's URL, determined by requests to it."""

from collections.abc import Mapping
from dataclasses import dataclass

from lab.addresses import shown_url
from lab.environments.config import EnvironmentConfig
from lab.environments.failures import RefusedError, no_environment, no_schema, refused_by, wants_token
from lab.environments.http_form import HttpForm, read_http_form
from lab.environments.keys import headers_of, space_headers
from lab.environments.schema import Schema
from lab.environments.wire import Reply, Wire

_SCHEMA, _ACTION_SCHEMA, _OPENAPI = "/schema", "/schema/action", "/openapi.json"


@dataclass(frozen=True)
class Server:
    """What a server publishes about itself.

    Attributes:
        headers: Headers of each request.
        schema: The action's schema, from `/schema`; None without one.
        http: The form of its `/reset` and `/step`; None without them.
    """

    url: str
    headers: Mapping[str, str]
    schema: Schema | None
    http: HttpForm | None


async def ask(config: EnvironmentConfig) -> Server:
    """Determine what the server of a declaration is.

    Raises:
        EnvError: It cannot be reached, requires a token, or is not an environment.
        ConfigError, NoKeyError: A header's variable is not set, or not for this host.
    """
    headers = headers_of(config)
    try:
        return await _ask(config, headers)
    except RefusedError:
        token = await space_headers(config.space, config.step_timeout_s) if config.is_space else {}
        if not token:
            raise
    return await _ask(config, {**headers, **token})


async def _ask(config: EnvironmentConfig, headers: Mapping[str, str]) -> Server:
    url, space = config.address.rstrip("/"), config.space if config.is_space else ""
    where = shown_url(url)
    async with Wire(url, headers, config.step_timeout_s) as wire:
        schema = await _schema(wire)
        action = _action(schema, where)
        openapi = await wire.ask("GET", _OPENAPI)
    if space and schema.status == openapi.status == 404:  # as a private Space answers
        raise wants_token(schema.text, where, space)
    for reply in (schema,) if schema.found else (schema, openapi):
        if error := refused_by(reply.status, reply.text, where, space):
            raise error
    try:
        http = read_http_form(openapi.json(), action)
    except Exception:  # a foreign document may contain anything
        http = None
    if action is None and http is None:
        why = f"/schema: {schema.text}; /openapi.json names no /reset and /step"
        raise no_environment(where, why)
    return Server(url, headers, action, http)


async def _schema(wire: Wire) -> Reply:
    schema = await wire.ask("GET", _SCHEMA)
    if schema.status == 404 and (older := await wire.ask("GET", _ACTION_SCHEMA)).found:
        return Reply(older.status, b'{"action": %s}' % older.body)  # as OpenEnv 0.1.1 has it
    return schema


def _action(reply: Reply, where: str) -> Schema | None:
    """The action's schema in the answer of `/schema`; None if the server has no such page."""
    if not reply.found:
        return None
    try:
        schema = reply.read()["action"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise no_schema(f"{type(error).__name__}: {error}", f"{where}{_SCHEMA}") from error
    if not isinstance(schema, dict):
        raise no_schema(f"its action is {schema!r}", f"{where}{_SCHEMA}")
    return schema
