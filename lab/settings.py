"""What the surroundings say: environment variables and `.env`, over what a file says.

One place reads them, for the lab and for `inference.py`; a real variable goes before `.env`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from urllib.parse import urlsplit

from lab.declaration import EnvironmentConfig
from lab.endpoint import EndpointConfig, shown_url
from lab.errors import ConfigError, NoKeyError
from lab.files import read_bounded

EMBEDDED = "embedded"
"""The endpoint that the lab starts itself: see `lab.local_model`."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class ModelChoice:
    """A model and where it is: `endpoint` is a base URL, or `embedded`."""

    endpoint: str
    name: str

    @property
    def embedded(self) -> bool:
        """Whether the lab has to start the endpoint itself."""
        return self.endpoint == EMBEDDED

    @property
    def shown(self) -> str:
        """The endpoint, fit for messages and files: no credentials."""
        return EMBEDDED if self.embedded else shown_url(self.endpoint)


def read_surroundings(folder: Path) -> None:
    """Add the variables of `folder/.env`, if there is one, to the environment; those that are set stay.

    What is on this machine is named in `NO_PROXY`, so that a proxy that is set is not asked for it.

    Raises:
        ConfigError: the file cannot be read, or holds a variable that cannot be set.
    """
    from dotenv import load_dotenv

    path = folder / ".env"
    try:
        load_dotenv(stream=StringIO(read_bounded(path).decode("utf-8-sig")))
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        do = "make it a text file in UTF-8, with a line NAME=value for each variable; or rename it"
        raise ConfigError("The variables in .env cannot be read.", where=str(path), why=why, do=do) from None
    direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")
    names = dict.fromkeys([*filter(None, direct.split(",")), *LOOPBACK])
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(names)


def choose_model(default: ModelChoice, environ: Mapping[str, str] = os.environ) -> ModelChoice:
    """`API_BASE_URL` and `MODEL_NAME` where they are set, else `default`.

    Raises:
        ConfigError: the URL is none, or an endpoint is named and no model for it is.
    """
    endpoint = environ.get("API_BASE_URL") or default.endpoint
    name = environ.get("MODEL_NAME") or (default.name if endpoint == default.endpoint else "")
    if endpoint != EMBEDDED and urlsplit(endpoint).scheme not in ("http", "https"):
        do = "use a URL such as https://host/v1"
        raise ConfigError(f"{shown_url(endpoint)!r} is no endpoint.", where="API_BASE_URL", do=do)
    if not name:
        do = "set MODEL_NAME to a model of that endpoint"
        raise ConfigError("The endpoint is set, but no model.", where="MODEL_NAME", do=do)
    return ModelChoice(endpoint, name)


def hosted_endpoint(model: ModelChoice, environ: Mapping[str, str] = os.environ) -> EndpointConfig:
    """How to call `model` at its URL, with the key from `HF_TOKEN` or `API_KEY`.

    Raises:
        NoKeyError: there is no key, and the endpoint is not on this machine; or it is none.
    """
    key = _key("HF_TOKEN", environ) or _key("API_KEY", environ)
    if not key and urlsplit(model.endpoint).hostname not in LOOPBACK:
        where, do = shown_url(model.endpoint), "set HF_TOKEN (or API_KEY), in the environment or in .env"
        raise NoKeyError("There is no API key for the endpoint.", where=where, do=do)
    return EndpointConfig(model.endpoint, model.name, key or "none")


def _key(name: str, environ: Mapping[str, str]) -> str:
    """The key in a variable, without a file's line end; empty where there is none."""
    key = environ.get(name, "").strip()
    if not (key.isascii() and key.isprintable()):
        do = f"set {name} anew, as the endpoint's own page shows the key"
        raise NoKeyError("The key holds characters that no key has.", where=name, do=do)
    return key


def proposer_endpoint(player: EndpointConfig, environ: Mapping[str, str] = os.environ) -> EndpointConfig:
    """How to call the model that proposes texts: the playing one's endpoint, but for what is set.

    `PROPOSER_BASE_URL` and `PROPOSER_MODEL_NAME` name another endpoint and model, `PROPOSER_API_KEY` its key;
    the playing model's key is never sent to another endpoint.

    Raises:
        ConfigError: the URL or the key is none, or an endpoint is named and no model for it is.
    """
    url = environ.get("PROPOSER_BASE_URL") or player.base_url
    same = url == player.base_url
    name = environ.get("PROPOSER_MODEL_NAME") or (player.model if same else "")
    if urlsplit(url).scheme not in ("http", "https"):
        do = "use a URL such as https://host/v1"
        raise ConfigError(f"{shown_url(url)!r} is no endpoint.", where="PROPOSER_BASE_URL", do=do)
    if not name:
        do = "set PROPOSER_MODEL_NAME to a model of that endpoint"
        raise ConfigError("The proposer's endpoint is set, but no model.", where="PROPOSER_MODEL_NAME", do=do)
    key = _key("PROPOSER_API_KEY", environ) or (player.api_key if same else "none")
    return EndpointConfig(url, name, key, player.patience)


def shown_proposer(environ: Mapping[str, str] = os.environ) -> str:
    """The proposing model where it is another one, fit for messages and files; else empty."""
    name, url = environ.get("PROPOSER_MODEL_NAME"), environ.get("PROPOSER_BASE_URL")
    return " at ".join(filter(None, [name, shown_url(url) if url else None]))


def choose_environment(
    declared: EnvironmentConfig, environ: Mapping[str, str] = os.environ
) -> EnvironmentConfig:
    """At `ENV_BASE_URL`, else from `LOCAL_IMAGE_NAME` or `IMAGE_NAME`, else where it is declared."""
    if url := environ.get("ENV_BASE_URL"):
        return replace(declared, url=url)
    if image := environ.get("LOCAL_IMAGE_NAME") or environ.get("IMAGE_NAME"):
        return replace(declared, url="", image=image)
    return declared
