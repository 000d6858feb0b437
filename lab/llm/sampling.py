"""SamplingParams: sampling parameters of a call, and the range of each numeric setting."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from lab.errors import ConfigError

LIMITS: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 2.0),
    "top_p": (0.01, 1.0),
    "max_tokens": (1, 32_768),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "top_k": (0, 10_000),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.01, 2.0),
    "seed": (-1, 2**31 - 1),
    "history": (0, 8),
    "demonstrations": (0, 8),
}
"""Range of each numeric setting, both ends included: OpenAI's ranges, and those of the prompt's settings."""

NEUTRAL: dict[str, object] = {
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "stop": (),
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "reasoning_effort": "",
    "seed": -1,
    "extra": (),
}
"""The value of each setting with which it is not sent: the endpoint's own default applies."""

UNLISTED = ("top_k", "min_p", "repetition_penalty", "reasoning_effort", "seed", "extra")
"""Settings that not all endpoints have: a neutral one is in no file and no table."""

EXTRA = "extra."
"""Prefix of settings that the lab does not know, and sends as they are."""

WHOLE = ("max_tokens", "top_k", "seed", "history", "demonstrations")
"""The integer settings."""

Setting = str | float | int | bool
"""The value of one setting: a template's name; a list, or an unknown setting's text, as JSON."""

_OURS = ("model", "messages", "stream", "n", "max_completion_tokens", "response_format")
"""Keys of a request that are no settings."""


class Settings(dict[str, Setting]):
    """Settings by name. One that is left at its neutral value may be absent, and is still found by name."""

    def __missing__(self, name: str) -> Setting:
        if name == "stop":
            return "[]"
        neutral = "" if name == "model" or name.startswith(EXTRA) else NEUTRAL[name]
        assert isinstance(neutral, str | float | int)
        return neutral


@dataclass(frozen=True)
class SamplingParams:
    """Sampling parameters, named as in the chat completions API.

    Attributes:
        max_tokens: Maximum tokens of one answer, thinking included.
        stop: Up to 4 strings that end an answer.
        top_k: Number of most likely tokens to draw from; 0 leaves it to the endpoint.
        min_p: Least probability of a token, relative to the most likely one.
        reasoning_effort: How much a thinking model thinks; empty leaves it to the endpoint.
        seed: Seed of an answer; -1 for none.
        extra: Other parameters of the request, by name, each as JSON; a mapping of values is accepted.
    """

    temperature: float = 0.7
    top_p: float = 1.0
    max_tokens: int = 150
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    reasoning_effort: str = ""
    seed: int = -1
    extra: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for name in LIMITS.keys() & {one.name for one in fields(self)}:
            number = check_number(name, getattr(self, name), whole=name in WHOLE)
            object.__setattr__(self, name, number if name in WHOLE else float(number))
        object.__setattr__(self, "stop", tuple(self.stop))
        if len(self.stop) > 4 or not all(isinstance(text, str) and text for text in self.stop):
            raise ConfigError("stop must be a list of up to 4 non-empty strings.", where="stop")
        if not isinstance(self.reasoning_effort, str):
            do = 'use a word that the endpoint knows, such as "low", "medium" or "high"'
            what = f"reasoning_effort is {self.reasoning_effort!r}."
            raise ConfigError(what, where="reasoning_effort", do=do)
        object.__setattr__(self, "extra", _extra(self.extra))

    @property
    def sent(self) -> dict[str, object]:
        """The parameters of a request, by their names as settings, without neutral ones."""
        own = {name: value for name, value in vars(self).items() if value != NEUTRAL.get(name)}
        own.pop("extra", None)
        return own | {EXTRA + name: json.loads(value) for name, value in self.extra}

    def without(self, names: Collection[str]) -> "SamplingParams":
        """The same with these settings at their neutral values; those that have none are kept."""
        neutral: dict[str, Any] = {name: NEUTRAL[name] for name in names if name in NEUTRAL}
        extra = tuple(one for one in self.extra if EXTRA + one[0] not in names)
        return replace(self, **{"extra": extra, **neutral})

    def as_table(self) -> dict[str, Any]:
        """Plain values for a TOML or JSON file."""
        kept = (name for name in vars(self) if name not in UNLISTED or getattr(self, name) != NEUTRAL[name])
        table = {name: getattr(self, name) for name in kept}
        table["stop"] = list(self.stop)
        return table | ({"extra": {k: json.loads(v) for k, v in self.extra}} if self.extra else {})

    @property
    def settings(self) -> Settings:
        """The parameters as `Setting`s."""
        settings = Settings()
        for name, value in self.as_table().items():
            if name == "stop":
                settings |= {"stop": json.dumps(value)} if value else {}
            elif name == "extra":
                settings |= {EXTRA + one: extra_setting(other) for one, other in value.items()}
            else:
                settings[name] = value
        return settings

    @classmethod
    def of(cls, settings: Mapping[str, Setting]) -> "SamplingParams":
        """The inverse of `settings`.

        Raises:
            ConfigError: A value has the wrong type, or is out of range.
        """
        extra = {name.removeprefix(EXTRA): one for name, one in settings.items() if name.startswith(EXTRA)}
        known: dict[str, Any] = {name: one for name, one in settings.items() if not name.startswith(EXTRA)}
        known["stop"] = tuple(json.loads(str(known.get("stop", "[]"))))
        read = {name: json.loads(one) if isinstance(one, str) else one for name, one in extra.items()}
        return cls(**known, extra=read)  # type: ignore[arg-type]


def extra_setting(value: object) -> Setting:
    """The value of an unknown setting: a number as it is, all else as JSON."""
    return value if isinstance(value, bool | int | float) else _json(value)


def _extra(extra: object) -> tuple[tuple[str, str], ...]:
    """Names and JSON values, in the order of the names."""
    pairs = {name: _json(one) for name, one in extra.items()} if isinstance(extra, Mapping) else dict(extra)  # type: ignore[call-overload]
    for name in pairs:
        if name in _OURS or name in {one.name for one in fields(SamplingParams)}:
            do = "use another name" if name in _OURS else f"set {name} itself"
            raise ConfigError(f"extra.{name} is not an unknown setting.", where=f"extra.{name}", do=do)
    return tuple(sorted(pairs.items()))


def _json(value: object) -> str:
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError):
        do = "use text, numbers, true or false, lists and tables of them"
        raise ConfigError(f"{value!r} cannot be sent as JSON.", where="extra", do=do) from None


def check_number(name: str, value: object, *, whole: bool = False) -> float:
    """Return `value`; raise a ConfigError unless it is a number within the limits of the setting `name`."""
    low, high = LIMITS[name]
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise ConfigError(f"{name} is {value!r}.", where=name, do=f"use {kind} from {low:g} to {high:g}")
    return value
