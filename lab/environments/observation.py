"""Observations as text: the whole, and each field.

It owns the results of reset and step in any of a server's forms, their validation (a server may send
anything), and how fields are written and cut.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from lab.environments.foreign import raised
from lab.environments.task_list import SESSION_KEYS
from lab.errors import ConfigError, EnvError, writable

Fields = Mapping[str, str | None]
"""The fields of an observation as text; None for a field without a value."""

Render = Callable[[dict[str, Any]], Any]
"""A project's hook that writes an observation: its fields in, text out."""

Score = Callable[[list[dict[str, Any]], list[float]], Any]
"""A project's hook that scores an episode so far: observations and rewards of its steps in, a number out."""

METADATA = "metadata"
"""Field that templates show by its names only, `metadata.NAME`."""

APART = ("done", "reward", METADATA)
"""Fields of an observation that are not part of its text."""

_MOST_NAMES, _DEEPEST = 200, 4
"""Maximum number of nested names of an observation, and of dots in one."""

_OBSERVATION = ("observation", "obs", "next_state", "state")
"""Names of the observation in a result, the usual one first."""

_ENDED = ("terminated", "truncated")
"""Names of the signs that an episode is over, beside `done`."""

_RESULT = ("reward", "done", *_ENDED, "info", METADATA, *SESSION_KEYS)
"""Names of the rest of a result. What else stands beside an observation is the environment's own."""

_REWARD = ("value", "reward", "delta", "step_reward", "step_score", "total", "score")
"""Names of the number in a reward that is an object: what the step earned before what is earned so far."""

ERRORS = ("last_action_error", "error", f"{METADATA}.last_action_error", f"{METADATA}.error")
"""Fields with the environment's own error of the last action, unless the declaration names another."""


@dataclass(frozen=True)
class Observed:
    """The result of reset or step: observation, reward, and whether the episode is over.

    Attributes:
        error: The environment's own error of the last action; None without one.
        raw: The observation as received, which is not kept with the step.
    """

    text: str
    reward: float
    done: bool
    fields: Fields = field(default_factory=dict)
    error: str | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class View:
    """How one environment's observations are shown.

    Attributes:
        text: The field shown as the whole, nested by dots; empty for all fields.
        longest: Maximum characters of a field; None for no limit.
        render: Hook that replaces the rules here.
        error: Field with the last action's error; empty for `ERRORS`.
        score: Hook that scores an episode; see `lab.agent.rollout`.
    """

    text: str = ""
    longest: int | None = None
    render: Render | None = None
    error: str = ""
    score: Score | None = None

    def observed(self, observation: object, reward: object, done: object) -> Observed:
        """Validate a result. A reward of None, which OpenEnv allows, counts as 0.

        Any number is a reward: also a boolean, one of NumPy's, a Decimal, or a text that is a number.

        Raises:
            EnvError: It is malformed, or its reward is not a finite number.
            ConfigError: The project's `render` failed.
        """
        value = 0.0 if reward is None else finite(reward)
        if value is None:
            raise EnvError("The environment's reward is not a finite number.", why=f"reward {reward!r}")
        if not isinstance(observation, dict) or not isinstance(done, bool):
            why = f"observation {observation!r}, done {done!r}"
            raise EnvError("The environment's observation is malformed.", why=why)
        shown = {name: self._field(one) for name, one in observation.items() if name not in APART}
        text, error = self._whole(observation, shown), self._last_error(observation)
        fields = {**self._nested(observation), **shown}
        return Observed(text, value, done, fields, error, observation)

    def _whole(self, observation: dict[str, Any], shown: dict[str, str | None]) -> str:
        if self.render is not None:
            return self._rendered(self.render, observation)
        if self.text:
            value = nested(observation, self.text)
            if not isinstance(value, str):
                why = f"its field {self.text} is {value!r}"
                raise EnvError("The environment's observation is malformed.", why=why)
            shown.pop(self.text, None)  # stored once, because it may be long
            return self._field(value) or ""
        if len(shown) == 1:
            return next(iter(shown.values())) or ""
        return "\n".join(f"{name}: {value}" for name, value in shown.items() if value is not None)

    def _last_error(self, observation: dict[str, Any]) -> str | None:
        """A text as it is, anything with parts as JSON; a number or a boolean is not a message."""
        for name in [self.error] if self.error else ERRORS:
            value = nested(observation, name)
            if value and isinstance(value, str | dict | list):
                return writable(value if isinstance(value, str) else _json(value))
        return None

    def _rendered(self, render: Render, observation: dict[str, Any]) -> str:
        try:
            text = render(dict(observation))
        except BaseException as error:  # of the project's own code, which may call sys.exit
            what, where = "The render hook failed.", "environment.hooks"
            raise ConfigError(what, where=where, why=raised(error)) from error
        if not isinstance(text, str):
            why = f"it returned {type(text).__name__}"
            raise ConfigError("The render hook did not return text.", where="environment.hooks", why=why)
        return writable(text)

    def _nested(self, observation: dict[str, Any]) -> dict[str, str | None]:
        """The values in objects, by names with dots."""
        found = ((name, one) for name, one in named(observation, _DEEPEST) if "." in name)
        return {name: self._field(one) for name, one in islice(found, _MOST_NAMES)}

    def _field(self, value: object) -> str | None:
        if value is None:
            return None
        told = value if isinstance(value, str) else _tool_text(value)
        text = writable(_json(value) if told is None else told)
        if self.longest is None or len(text) <= self.longest:
            return text
        return f"{text[: self.longest]} [... {len(text) - self.longest} characters more]"


def result_of(body: object) -> tuple[object, object, object]:
    """Observation, reward and done in a server's JSON, for `View.observed`.

    OpenEnv's form is an object with observation, reward and done. Others add `info`, fields of their own, or
    a reward with parts, which become the observation's metadata; call the observation a state; give its
    fields beside reward and done; put all of it one level down; or answer with a list, as Gym does.
    """
    if isinstance(body, list) and len(body) in (4, 5):
        observation, reward, done, *rest = body
        body = {"observation": observation, "reward": reward, "info": rest[-1]}
        body["done"] = done or rest[0] is True
    if not isinstance(body, dict):
        return body, None, False
    body = unwrapped(body)
    shown, beside = _observation_in(body)
    metadata = shown.get(METADATA) or body.get(METADATA) or body.get("info") or {}
    told = {**shown, **{name: one for name, one in body.items() if one is not None}}
    reward = told.get("reward")
    if isinstance(metadata, dict):
        own = beside if not shown.get(METADATA) else {}
        metadata = {**own, **metadata, **({"reward": reward} if isinstance(reward, dict) else {})}
    if metadata:
        shown = {**shown, METADATA: metadata}
    if isinstance(reward, dict):
        reward = reward.get(reward_part(reward), reward)
    ended = any(told.get(name) is True for name in _ENDED)
    return shown, reward, told.get("done") or ended


def unwrapped(body: dict[str, Any]) -> dict[str, Any]:
    """The result in an envelope such as `{"success": true, "data": {...}}`, with the envelope's other fields.

    An object without one is returned as it is.
    """
    apart = ("info", METADATA, "state")
    inner = [name for name, one in body.items() if isinstance(one, dict) and _is_result(one)]
    if _is_result(body) or any(name in body for name in ("reward", "done")) or len(inner) != 1:
        return body
    (name,) = inner
    return body if name in apart else {**{key: body[key] for key in body if key != name}, **body[name]}


def _is_result(values: dict[str, Any]) -> bool:
    ends = any(name in values for name in ("done", *_ENDED))
    return any(name in values for name in _OBSERVATION[:-1]) or ("reward" in values and ends)


def reward_part(parts: Mapping[str, Any]) -> str:
    """The name of the number in a reward that is an object; empty if none is known."""
    return next((name for name in _REWARD if name in parts), "")


def _observation_in(body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The observation in a result, and the environment's own fields beside it."""
    name = next((name for name in _OBSERVATION if name in body), "")
    beside = {key: one for key, one in body.items() if key not in (name, *_RESULT)}
    if name == "observation" or (isinstance(body.get(name), dict) and not beside):
        shown = body[name]
        return shown if isinstance(shown, dict) else {name: shown}, beside
    return {key: one for key, one in body.items() if key != "info"}, {}


def nested(values: Mapping[str, Any], path: str) -> Any:  # noqa: ANN401  # of foreign JSON
    """The value at a path of names, separated by dots; None if it does not exist."""
    return next((one for name, one in named(values, path.count(".")) if name == path), None)


def named(values: Mapping[str, Any], deepest: int) -> Iterator[tuple[str, Any]]:
    """All values by name, with up to `deepest` dots for those in objects; outer ones first."""
    level: list[tuple[str, Mapping[str, Any]]] = [("", values)]
    for _ in range(deepest + 1):
        inner = []
        for before, outer in level:
            for name, one in outer.items():
                yield f"{before}{name}", one
                if isinstance(one, Mapping):
                    inner.append((f"{before}{name}.", one))
        level = inner


def _tool_text(value: object) -> str | None:
    """The text of an MCP tool's result; None for any other value."""
    parts = value.get("content") if isinstance(value, dict) else None
    if not isinstance(parts, list) or not parts:
        return None
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    if len(texts) < len(parts) or not all(isinstance(text, str) for text in texts):
        return None
    return "\n".join(map(str, texts))


def finite(value: Any) -> float | None:  # noqa: ANN401  # of a foreign environment
    """A foreign value as a number; None if it is not a number, or not finite."""
    if not isinstance(value, str) and not hasattr(value, "__float__") and not hasattr(value, "__index__"):
        return None
    try:
        number = float(value)
    except Exception:  # a word, an integer with hundreds of digits, an array, foreign code
        return None
    return number if math.isfinite(number) else None


def _json(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except Exception as error:  # nested too deeply, circular, or an object whose str() fails
        why = f"a field cannot be written: {type(error).__name__}"
        raise EnvError("The environment's observation is malformed.", why=why) from error
