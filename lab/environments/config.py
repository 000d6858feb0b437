"""An EnvironmentConfig: the declaration of an environment, in an experiment file or a frozen prompt.

It owns the declaration's keys, the variables that override them, and the rule that its code must be inside
the project. Opening is `lab.environments.environment`'s.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any

from lab.addresses import shown_url
from lab.errors import ConfigError
from lab.llm.keys import HEADER, refuse_secret

STEP_TIMEOUT_S = 60.0
"""Default time limit of a reset or a step, in seconds."""

_PYTHON = re.compile(r"[^:]+:[A-Za-z_]\w*")
_SPACE = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class EnvironmentConfig:
    """The location of an environment, and how its observations become text.

    Of several locations the first is used: `url`, `image`, `space`, `python`. Paths are relative to the root.

    Attributes:
        python: `file.py:Name` or `module:Name`: an OpenEnv Environment class, or a function that returns one.
        image: A Docker image.
        space: `owner/name`, a Hugging Face Space.
        text: Observation field that `{observation}` shows; empty for all.
        error: Observation field with the error of the last action, dots for nested ones; by default the first
            of `last_action_error` and `error`, also in the metadata, that has a value.
        hooks: A Python file with `render`, `parse` or `score`.
        longest: Maximum characters of a field that are shown; None for no limit.
        step_timeout_s: Time limit of a reset or a step, in seconds.
        headers: HTTP headers for the server at `url` or of `space`; `env:NAME` is the value of a variable.
    """

    python: str = ""
    url: str = ""
    image: str = ""
    space: str = ""
    text: str = ""
    error: str = ""
    hooks: str = ""
    longest: int | None = None
    step_timeout_s: float = STEP_TIMEOUT_S
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.python or self.url or self.image or self.space):
            do = "set one of python, url, image, space"
            raise ConfigError("No environment location given.", where="environment", do=do)
        if self.python and not _PYTHON.fullmatch(self.python):
            what, do = f"{self.python!r} is not a valid import path.", "use file.py:Name or module:Name"
            raise ConfigError(what, where="environment.python", do=do)
        if self.space and not _SPACE.fullmatch(self.space):
            what = f"{self.space!r} is not a valid Space ID."
            raise ConfigError(what, where="environment.space", do="use owner/name")
        if self.longest is not None and self.longest < 1:
            do = "use a whole number, 1 or more"
            raise ConfigError("longest is below 1.", where="environment.longest", do=do)
        if not 0 < self.step_timeout_s < inf:
            what, do = f"step_timeout_s is {self.step_timeout_s:g}.", "use a number of seconds above 0"
            raise ConfigError(what, where="environment.step_timeout_s", do=do)
        for name, value in self.headers.items():
            _check_header(name, value)

    @property
    def address(self) -> str:
        """The URL of its server; empty if it has none yet, or runs in process."""
        if not self.is_space:
            return self.url
        return f"https://{re.sub('[^a-z0-9]+', '-', self.space.lower())}.hf.space"

    @property
    def is_space(self) -> bool:
        """Whether it is played at its Space's own URL."""
        return bool(self.space) and not (self.url or self.image)

    @property
    def shown(self) -> str:
        """Its location for people, without credentials."""
        if self.address:
            return f"at {shown_url(self.address)}"
        return f"from image {self.image}" if self.image else f"{self.python}, in this process"

    @property
    def python_file(self) -> str:
        """The file in `python`; empty for a module."""
        file = self.python.rpartition(":")[0]
        return file if file.endswith(".py") else ""

    def as_table(self) -> dict[str, Any]:
        """The keys that are set, without credentials, for a file that others read."""
        table = {name: value for name, value in asdict(self).items() if value}
        if self.step_timeout_s == STEP_TIMEOUT_S:
            del table["step_timeout_s"]
        if self.url:
            table["url"] = shown_url(self.url)
        return table


def _check_header(name: str, value: object) -> None:
    """Refuse an invalid header, and one that holds a secret: the file is stored and shown."""
    where = f"environment.headers.{name}"
    if not re.fullmatch(HEADER, name) or not isinstance(value, str) or not value.isprintable():
        raise ConfigError("Invalid HTTP header.", where=where, do='write Name = "value"')
    refuse_secret(name, value, where)


def within(root: Path, file: str) -> Path:
    """The path of one of the project's Python files.

    Raises:
        ConfigError: It does not exist, or is outside the project: only the project's code is run.
    """
    path = (root / file).resolve()
    if not path.is_relative_to(root.resolve()):
        what, do = "Only code in the project's own folder can be run.", f"copy it into {root}"
        raise ConfigError(what, where=file, do=do)
    if not path.is_file():
        raise ConfigError("The file does not exist.", where=str(path), do=f"use a path relative to {root}")
    return path


def choose_environment(
    declared: EnvironmentConfig, environ: Mapping[str, str] = os.environ
) -> EnvironmentConfig:
    """The declaration, overridden by `ENV_BASE_URL`, else by `LOCAL_IMAGE_NAME` or `IMAGE_NAME`."""
    if url := environ.get("ENV_BASE_URL"):
        return replace(declared, url=url)
    if image := environ.get("LOCAL_IMAGE_NAME") or environ.get("IMAGE_NAME"):
        return replace(declared, url="", image=image)
    return declared
