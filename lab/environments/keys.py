"""Keys for an environment's server: its headers, and the token of a private Space.

A key goes only to the host that it was given for, by the rule of `lab.llm.keys`: a variable that a header
names is sent where the surroundings that hold it name the host in `ENV_BASE_URL`, or to this machine.
"""

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from lab.environments.config import EnvironmentConfig
from lab.environments.wire import Wire
from lab.errors import ConfigError, EnvError, NoKeyError
from lab.llm.keys import LOOPBACK, VARIABLE, Endpoints
from lab.llm.settings import held_key

HUB = "https://huggingface.co"
"""The host that issues the tokens of Spaces, and knows which are private."""


def headers_of(config: EnvironmentConfig) -> dict[str, str]:
    """The declared headers, with the values of their variables.

    Raises:
        ConfigError: A variable is not set.
        NoKeyError: A variable is set, but not confirmed for this host; or its value is not valid in a header.
    """
    return {name: _value(name, value, config.address) for name, value in config.headers.items()}


def _value(header: str, value: str, url: str) -> str:
    if not value.startswith(VARIABLE):
        return value
    variable = value.removeprefix(VARIABLE)
    try:
        key = held_key(Endpoints(url, (variable,), ("ENV_BASE_URL",)))
    except NoKeyError as error:
        do = error.do.partition(", or pass")[0]  # `--endpoint` is the model's
        raise NoKeyError(error.what, where=error.where, why=error.why, do=do) from None
    if not key and urlsplit(url).hostname in LOOPBACK:
        key = os.environ.get(variable, "").strip()
    if not key:
        where, do = f"environment.headers.{header}", "set it, in the environment or in .env"
        raise ConfigError(f"{variable} is not set.", where=where, do=do)
    return key


async def space_headers(space: str, timeout_s: float) -> Mapping[str, str]:
    """The header for a private Space that the user's `HF_TOKEN` may read; none for any other.

    Every Space's owner reads what the Space is sent, so the Hub is asked first whether this one is private.
    """
    token = held_key(Endpoints(HUB, ("HF_TOKEN",), ()))
    if not token:
        return {}
    bearer = {"Authorization": f"Bearer {token}"}
    try:
        async with Wire(HUB, bearer, timeout_s) as hub:
            reply = await hub.ask("GET", f"/api/spaces/{space}")
    except EnvError:  # the Space's own answer is reported
        return {}
    known = reply.json()
    return bearer if isinstance(known, dict) and known.get("private") is True else {}
