"""Observations as text: the whole, and each field.

It owns the validation of results (a server may send anything), and how fields are written and cut.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from lab.environments.foreign import raised
from lab.errors import ConfigError, EnvError

Fields = Mapping[str, str | None]
"""The fields of an observation as text; None for a field without a value."""

Render = Callable[[dict[str, Any]], Any]
"""A project's hook that writes an observation: its fields in, text out."""

METADATA = "metadata"
"""Field that templates show by its names only, `metadata.NAME`."""

APART = ("done", "reward", METADATA)
"""Fields of an observation that are not part of its text."""

_MOST_NAMES, _DEEPEST = 200, 4
"""Maximum number of nested names of an observation, and of dots in one."""


@dataclass(frozen=True)
class Observed:
    """The result of reset or step: observation, reward, and whether the episode is over."""

    text: str
    reward: float
    done: bool
    fields: Fields = field(default_factory=dict)


@dataclass(frozen=True)
class View:
    """How one environment's observations are shown.

    Attributes:
        text: The field shown as the whole, nested by dots; empty for all fields.
        longest: Maximum characters of a field; None for no limit.
        render: Hook that replaces the rules here.
    """

    text: str = ""
    longest: int | None = None
    render: Render | None = None

    def observed(self, observation: object, reward: object, done: object) -> Observed:
        """Validate a result. A reward of None, which OpenEnv allows, counts as 0.

        Raises:
            EnvError: It is malformed, or its reward is not a finite number.
            ConfigError: The project's `render` failed.
        """
        value = 0.0 if reward is None else reward
        if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
            raise EnvError("The environment's reward is not a finite number.", why=f"reward {reward!r}")
        if not isinstance(observation, dict) or not isinstance(done, bool):
            why = f"observation {observation!r}, done {done!r}"
            raise EnvError("The environment's observation is malformed.", why=why)
        shown = {name: self._field(one) for name, one in observation.items() if name not in APART}
        text = self._whole(observation, shown)
        return Observed(text, float(value), done, {**self._nested(observation), **shown})

    def _whole(self, observation: dict[str, Any], shown: dict[str, str | None]) -> str:
        if self.render is not None:
            return self._rendered(self.render, observation)
        if self.text:
            value: object = observation
            for part in self.text.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if not isinstance(value, str):
                why = f"its field {self.text} is {value!r}"
                raise EnvError("The environment's observation is malformed.", why=why)
            shown.pop(self.text, None)  # stored once, because it may be long
            return self._field(value) or ""
        if len(shown) == 1:
            return next(iter(shown.values())) or ""
        return "\n".join(f"{name}: {value}" for name, value in shown.items() if value is not None)

    def _rendered(self, render: Render, observation: dict[str, Any]) -> str:
        try:
            text = render(dict(observation))
        except BaseException as error:  # of the project's own code, which may call sys.exit
            what, where = "The render hook failed.", "environment.hooks"
            raise ConfigError(what, where=where, why=raised(error)) from error
        if not isinstance(text, str):
            why = f"it returned {type(text).__name__}"
            raise ConfigError("The render hook did not return text.", where="environment.hooks", why=why)
        return _unicode(text)

    def _nested(self, observation: dict[str, Any]) -> dict[str, str | None]:
        """The values in objects, by names with dots."""
        objects = ((name, one) for name, one in observation.items() if isinstance(one, dict))
        found = (pair for name, one in objects for pair in _leaves(name, one, _DEEPEST))
        return {name: self._field(one) for name, one in islice(found, _MOST_NAMES)}

    def _field(self, value: object) -> str | None:
        if value is None:
            return None
        told = value if isinstance(value, str) else _tool_text(value)
        text = _unicode(_json(value) if told is None else told)
        if self.longest is None or len(text) <= self.longest:
            return text
        return f"{text[: self.longest]} [... {len(text) - self.longest} characters more]"


def _leaves(name: str, value: dict[Any, Any], levels: int) -> Iterator[tuple[str, object]]:
    for key, inner in value.items():
        yield f"{name}.{key}", inner
        if isinstance(inner, dict) and levels > 1:
            yield from _leaves(f"{name}.{key}", inner, levels - 1)


def _tool_text(value: object) -> str | None:
    """The text of an MCP tool's result; None for any other value."""
    parts = value.get("content") if isinstance(value, dict) else None
    if not isinstance(parts, list) or not parts:
        return None
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    if len(texts) < len(parts) or not all(isinstance(text, str) for text in texts):
        return None
    return "\n".join(map(str, texts))


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer with hundreds of digits
        return False


def _json(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except Exception as error:  # nested too deeply, circular, or an object whose str() fails
        why = f"a field cannot be written: {type(error).__name__}"
        raise EnvError("The environment's observation is malformed.", why=why) from error


def _unicode(text: str) -> str:
    """Replace lone surrogates, which JSON may contain, but which could be neither sent nor written."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode("utf-8")
    return text  # itself, not a copy: an echo is stored once
