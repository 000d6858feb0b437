"""Settings of the model: environment variables and `.env`, which take precedence over the experiment file.

They are read here for the lab and for `inference.py`; environment variables take precedence over `.env`.
Settings of the OpenEnv environment are read in `lab.environments.config`.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from urllib.parse import urlsplit

from lab.addresses import shown_url, without_secrets
from lab.errors import ConfigError, NoKeyError
from lab.files import read_bounded
from lab.llm.client import EndpointConfig
from lab.llm.dialect import OPENAI, Dialect
from lab.llm.failures import USUAL, Settings
from lab.llm.keys import HEADER, LOOPBACK, VARIABLE, Endpoints, Origins, host_of, key_for
from lab.local_model.weights import MODEL_ID, PATH_VARIABLE, model_name

EMBEDDED = "embedded"
"""The endpoint of the model that the lab starts itself: see `lab.local_model`."""

_CLIENTS = ("host", "content-length", "content-type", "transfer-encoding", "accept-encoding", "connection")
"""Headers that the client sets itself."""

KEYS = ("HF_TOKEN", "API_KEY", "OPENAI_API_KEY")
"""Variables that may hold the endpoint's key; OpenAI's is only for its own host."""

_origins = Origins()
"""Origins of this process's variables, as found by `read_surroundings`."""


@dataclass(frozen=True)
class ModelChoice:
    """A model's name and endpoint: a base URL, or `embedded`.

    Attributes:
        dialect: What the endpoint's requests may hold, as far as known.
        headers: Headers of each request; a value `env:NAME` stands for a variable.
        table: NAME of its table `[models.NAME]`; empty for `[model]`.
    """

    endpoint: str
    name: str
    dialect: Dialect = OPENAI
    headers: tuple[tuple[str, str], ...] = ()
    table: str = ""

    @property
    def embedded(self) -> bool:
        """Whether the lab has to start the endpoint itself."""
        return self.endpoint == EMBEDDED

    @property
    def shown(self) -> str:
        """The endpoint without credentials, for messages and files."""
        return EMBEDDED if self.embedded else without_secrets(self.endpoint)

    @property
    def variables(self) -> str:
        """Prefix of the variables `NAME_API_KEY` and `NAME_BASE_URL` of a table; empty for `[model]`."""
        return re.sub(r"\W", "_", self.table).upper()

    @property
    def settings(self) -> Settings:
        """What the user sets to choose it."""
        if not self.table:
            return USUAL
        table = f"models.{self.table}"
        return Settings(f"{self.variables}_API_KEY", f"{table}.name", f"{table}.endpoint")


def read_surroundings(folder: Path, endpoint: str = "") -> None:
    """Add the variables of `folder/.env`, if it exists, to the environment, without overriding any.

    Also adds loopback hosts to `NO_PROXY`, so that a proxy is not used for them.

    Args:
        endpoint: URL of the flag `--endpoint`, which takes precedence over `API_BASE_URL` and confirms that
            the key is for this host.

    Raises:
        ConfigError: The file cannot be read, or contains a variable that cannot be set.
    """
    if endpoint:
        os.environ["API_BASE_URL"] = endpoint
    path = folder / ".env"
    try:
        _remember(_variables(path), endpoint)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        do = "make it a UTF-8 text file with one NAME=value a line, or rename it"
        raise ConfigError("The variables in .env cannot be read.", where=str(path), why=why, do=do) from None
    direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")
    names = dict.fromkeys([*filter(None, direct.split(",")), *LOOPBACK])
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(names)


def _variables(path: Path) -> Mapping[str, str | None]:
    """The variables of a `.env` file; none if it does not exist."""
    from dotenv import dotenv_values

    try:
        text = read_bounded(path).decode("utf-8-sig")
    except FileNotFoundError:
        return {}
    # Not interpolated: `API_KEY=${HF_TOKEN}` would take the shell's key to the host that the file names.
    return dotenv_values(stream=StringIO(text), interpolate=False)


def _remember(file: Mapping[str, str | None], endpoint: str) -> None:
    """Set the variables that only `.env` has, and remember each one's origin: a key follows its host."""
    global _origins
    held = {name: value for name, value in file.items() if value is not None}
    added = {name for name in held if name not in os.environ or name in _origins.added}
    os.environ.update({name: held[name] for name in added})
    _origins = Origins(held, frozenset(added), endpoint or _origins.confirmed)


def choose_model(default: ModelChoice, environ: Mapping[str, str] = os.environ) -> ModelChoice:
    """The model of `API_BASE_URL` and `MODEL_NAME`, if set, else `default`; they override no `[models.NAME]`.

    The embedded model is that of the file `LOCAL_MODEL_PATH`, if set, whatever name `default` has.

    Raises:
        ConfigError: The URL is invalid, an endpoint is set without a model, or the endpoint is the embedded
            one and the model another.
    """
    if default.table:
        return default
    if default.embedded and environ.get(PATH_VARIABLE, "").strip():
        default = replace(default, name=model_name(environ))
    endpoint = (environ.get("API_BASE_URL") or default.endpoint).strip()
    name = environ.get("MODEL_NAME") or (default.name if endpoint == default.endpoint else "")
    check_endpoint(endpoint, "API_BASE_URL")
    if not name:
        do = "set MODEL_NAME to a model of that endpoint"
        raise ConfigError("An endpoint is set, but no model.", where="MODEL_NAME", do=do)
    if default.embedded and endpoint == EMBEDDED and name != default.name:
        what, why = f"No endpoint is set for {name!r}.", f"the embedded model is {default.name}"
        do = "set API_BASE_URL to this model's endpoint, or unset MODEL_NAME"
        raise ConfigError(what, where="MODEL_NAME", why=why, do=do)
    if endpoint == EMBEDDED and name != model_name(environ):
        what, why = f"The model {name!r} is not embedded.", f"without {PATH_VARIABLE}, that is {MODEL_ID}"
        raise ConfigError(what, where="model.name", why=why, do=f"set {PATH_VARIABLE} to its .gguf file")
    dialect = default.dialect if name == default.name else OPENAI
    if endpoint == default.endpoint:
        return ModelChoice(endpoint, name, dialect, default.headers)
    here = not default.embedded and host_of(endpoint) == host_of(default.endpoint)
    return ModelChoice(endpoint, name, replace(dialect, path=""), default.headers if here else ())


def check_endpoint(url: str, where: str) -> None:
    """Raise a ConfigError unless `url` is `embedded`, or the URL of a server."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an unclosed bracket, or an invalid port
        valid = False
    if not valid and url != EMBEDDED:
        do = "use a URL such as https://host/v1"
        raise ConfigError(f"{shown_url(url)!r} is not a valid endpoint URL.", where=where, do=do)


def hosted_endpoint(
    model: ModelChoice, environ: Mapping[str, str] = os.environ, origins: Origins | None = None
) -> EndpointConfig:
    """How to call `model` at its URL, with the key that `lab.llm.keys` finds for it.

    Raises:
        NoKeyError: No key is set, and the endpoint is not on this machine; or the key is malformed.
    """
    key = _key_of(model, environ, origins or _origins)
    headers = tuple((name, _header(model, name, environ, origins or _origins)) for name, _ in model.headers)
    has_own = any(value.startswith(VARIABLE) for _, value in model.headers)
    if not key and not has_own and urlsplit(model.endpoint).hostname not in LOOPBACK:
        where, do = shown_url(model.endpoint), f"set {model.settings.key}, in the environment or in .env"
        raise NoKeyError("No API key is set for the endpoint.", where=where, do=do)
    return EndpointConfig(
        model.endpoint,
        model.name,
        key or "none",
        dialect=model.dialect,
        headers=headers,
        settings=model.settings,
    )


def _key_of(model: ModelChoice, environ: Mapping[str, str], origins: Origins) -> str:
    """The key for a model's endpoint: that of its table, else the one for `API_BASE_URL`; as `key_for`."""
    usual = Endpoints(model.endpoint, KEYS, ("API_BASE_URL",))
    if not model.table:
        return key_for(usual, environ, origins)
    own, place = f"{model.variables}_API_KEY", f"{model.variables}_BASE_URL"
    if key := key_for(Endpoints(model.endpoint, (own,), (place, "API_BASE_URL")), environ, origins):
        return key
    try:
        return key_for(usual, environ, origins)
    except NoKeyError as error:
        if not error.why:  # malformed, not withheld
            raise
        do = f"set {own} and {place}={model.shown}, both in the environment or both in .env"
        raise NoKeyError(error.what, where=error.where, why=error.why, do=do) from None


def check_headers(headers: Mapping[str, object], where: str) -> None:
    """Raise a ConfigError unless all of `headers` can be sent with a request."""
    for name, value in headers.items():
        text = isinstance(value, str) and value.isascii() and value.isprintable()
        if not text or not re.fullmatch(HEADER, name) or name.lower() in _CLIENTS:
            do = f"use ASCII characters on one line, and none of {', '.join(_CLIENTS)}"
            raise ConfigError(f"{name!r} is not a valid header.", where=f"{where}.{name}", do=do)


def _header(model: ModelChoice, name: str, environ: Mapping[str, str], origins: Origins) -> str:
    """The value of a header; that of a variable follows the rule for keys."""
    value = dict(model.headers)[name]
    if not value.startswith(VARIABLE):
        return value
    variable = value.removeprefix(VARIABLE)
    places = [*([f"{model.variables}_BASE_URL"] if model.table else []), "API_BASE_URL"]
    found = key_for(Endpoints(model.endpoint, (variable,), places), environ, origins)
    if not found:
        what = f"The header {name} needs {variable}, which is not set for this endpoint."
        do = f"set {variable} and {places[0]}, both in the environment or both in .env"
        raise NoKeyError(what, where=shown_url(model.endpoint), do=do)
    return found


def held_key(wanted: Endpoints) -> str:
    """The key that this process's surroundings hold for a server; see `lab.llm.keys.key_for`.

    Raises:
        NoKeyError: A key is set, but the rule withholds it from this host; or the key is malformed.
    """
    return key_for(wanted, os.environ, _origins)


def proposer_endpoint(
    player: EndpointConfig, environ: Mapping[str, str] = os.environ, origins: Origins | None = None
) -> EndpointConfig:
    """The endpoint of the model that proposes templates: by default the playing model's.

    `PROPOSER_BASE_URL` and `PROPOSER_MODEL_NAME` set another endpoint and model, `PROPOSER_API_KEY` its key;
    the playing model's key is never sent to another endpoint.

    Raises:
        ConfigError: The URL is invalid, or an endpoint is set without a model.
        NoKeyError: The key is not for that endpoint, or malformed.
    """
    url = environ.get("PROPOSER_BASE_URL") or player.base_url
    same = url == player.base_url
    name = environ.get("PROPOSER_MODEL_NAME") or (player.model if same else "")
    check_endpoint(url, "PROPOSER_BASE_URL")
    if not name:
        do = "set PROPOSER_MODEL_NAME to a model of that endpoint"
        raise ConfigError("A proposer endpoint is set, but no model.", where="PROPOSER_MODEL_NAME", do=do)
    variables = ("API_BASE_URL", "PROPOSER_BASE_URL") if same else ("PROPOSER_BASE_URL",)
    key = key_for(Endpoints(url, ("PROPOSER_API_KEY",), variables), environ, origins or _origins)
    key = key or (player.api_key if same else "none")
    settings = Settings("PROPOSER_API_KEY", "PROPOSER_MODEL_NAME", "PROPOSER_BASE_URL")
    if not same:
        return EndpointConfig(url, name, key, player.patience, settings=settings)
    if name == player.model:
        return replace(player, api_key=key)
    return replace(player, model=name, api_key=key, dialect=OPENAI, settings=settings)


def shown_proposer() -> str:
    """The proposing model, for messages and files; empty if it is the playing one."""
    name, url = os.environ.get("PROPOSER_MODEL_NAME"), os.environ.get("PROPOSER_BASE_URL")
    return " at ".join(filter(None, [name, shown_url(url) if url else None]))
