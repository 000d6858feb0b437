"""Keys: which of the user's API keys an endpoint gets.

It owns the rule: a key follows its host. A key is sent only where the surroundings that hold it (the process
environment, or `.env`) name the host too, where the user named it with `--endpoint`, or to the host that
issues such keys. Reading the surroundings is `lab.llm.settings`'.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from lab.addresses import shown_url
from lab.errors import ConfigError, NoKeyError

LOOPBACK = ("localhost", "127.0.0.1", "::1")

ISSUERS = {"HF_TOKEN": "huggingface.co", "OPENAI_API_KEY": "api.openai.com"}
"""The host that issues each key: over TLS, it and its subdomains always get the key."""

ENVIRONMENT, FILE = "the environment", ".env"

HEADER = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
"""Pattern of a header's name (RFC 9110, section 5.1)."""

VARIABLE = "env:"
"""Prefix of a header's value that names a variable."""

_SECRET = r"(?i)auth|cookie|(?<!port)key|pass|secret|token"
"""Names of headers that hold credentials; Portkey is a gateway."""


def refuse_secret(header: str, value: str, where: str) -> None:
    """Check that a declared header contains no credential, but the name of its variable: the file is shown.

    Raises:
        ConfigError: It contains one.
    """
    if re.search(_SECRET, header) and not value.startswith(VARIABLE):
        do = f'set a variable, in the environment or in .env, and write {header} = "{VARIABLE}VARIABLE"'
        raise ConfigError("An experiment file must not contain a key.", where=where, do=do)


@dataclass(frozen=True)
class Origins:
    """Where the process's variables come from.

    Attributes:
        file: Variables in `.env`.
        added: Names of variables that only `.env` sets.
        confirmed: URL of `--endpoint`; empty without that flag.
    """

    file: Mapping[str, str] = field(default_factory=dict)
    added: frozenset[str] = frozenset()
    confirmed: str = ""


@dataclass(frozen=True)
class Endpoints:
    """The endpoint that a key is for.

    Attributes:
        url: URL of the endpoint.
        keys: Variables that may hold its key, in order of precedence.
        variables: Variables that may hold its URL, in order of precedence.
    """

    url: str
    keys: Sequence[str]
    variables: Sequence[str]


def key_for(wanted: Endpoints, environ: Mapping[str, str], origins: Origins) -> str:
    """The key for an endpoint; empty if none is set, or none that a loopback host may get.

    A key from the surroundings that name the endpoint takes precedence over its issuer's, and the environment
    over `.env`.

    Raises:
        NoKeyError: A key is set, but the rule withholds it from this host; or the key is malformed.
    """
    places = {
        ENVIRONMENT: {name: value for name, value in environ.items() if name not in origins.added},
        FILE: origins.file,
    }
    named_in = [place for place, held in places.items() if _names(held, wanted)]
    allowed = places if host_of(origins.confirmed) == host_of(wanted.url) else named_in
    # OpenAI's key is set for many programs, so it is only for OpenAI's host.
    known = [name for name in wanted.keys if name != "OPENAI_API_KEY" or _issued(name, wanted.url)]
    names = sorted(known, key=lambda name: not _issued(name, wanted.url))
    found = [(place, name) for place, held in places.items() for name in names if held.get(name, "").strip()]
    follow = [one for one in found if one[0] in allowed] or [
        one for one in found if _issued(one[1], wanted.url)
    ]
    if follow:
        place, name = follow[0]
        return _clean(name, places[place][name])
    if found and urlsplit(wanted.url).hostname not in LOOPBACK:
        raise _withheld(*found[0], wanted, named_in)
    return ""


def _names(held: Mapping[str, str], wanted: Endpoints) -> bool:
    return any(host_of(held.get(variable, "")) == host_of(wanted.url) for variable in wanted.variables)


def _issued(name: str, url: str) -> bool:
    issuer, (scheme, host, _) = ISSUERS.get(name), host_of(url)
    return issuer is not None and scheme == "https" and f".{host}".endswith(f".{issuer}")


def host_of(url: str) -> tuple[str, str, str]:
    """Scheme, host and port of a URL: a key is for one port of a host."""
    try:
        parts = urlsplit(url.strip())
    except ValueError:  # a bracket that is not closed
        return "", url, ""
    host, scheme = (parts.hostname or "").rstrip("."), parts.scheme
    port = parts.netloc.rpartition("@")[2].rpartition("]")[2].partition(":")[2]
    return scheme, host, port or {"http": "80", "https": "443"}.get(scheme, "")


def _clean(name: str, key: str) -> str:
    """The key in a variable, without a trailing newline."""
    key = key.strip()
    if not (key.isascii() and key.isprintable()):
        do = f"copy the key again from the endpoint's page, and set {name}"
        raise NoKeyError("The API key contains invalid characters.", where=name, do=do)
    return key


def _withheld(place: str, name: str, wanted: Endpoints, named_in: Sequence[str]) -> NoKeyError:
    shown, variable = shown_url(wanted.url), wanted.variables[0]
    named = named_in[0] if named_in else "the experiment or the frozen file"
    what = f"{name} was not sent: it is not confirmed for {urlsplit(wanted.url).hostname}."
    why = f"the key is set in {place}, but the endpoint in {named}"
    do = f"set {variable}={shown} in the same place as the key, or pass --endpoint {shown}"
    return NoKeyError(what, where=shown, why=why, do=do)
