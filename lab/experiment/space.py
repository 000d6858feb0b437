"""The Space: the dimensions of candidates, read from the table `[space]`.

It owns the syntax of that table (a value fixes a dimension, a list or {low, high} frees it, and the baseline
gives the rest), and the conversion between parameters and a Candidate. It does not judge candidates.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lab.agent.candidate import Candidate, ContextSettings, Demonstration, Setting
from lab.agent.template import FindTemplate, PromptTemplate
from lab.errors import ConfigError, unknown_key
from lab.llm.sampling import EXTRA, LIMITS, UNLISTED, WHOLE, SamplingParams, check_number, extra_setting

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class Choices:
    """A list of values; for templates, their names."""

    values: tuple[Setting, ...]

    @property
    def ends(self) -> tuple[Setting, ...]:
        """The values at which limits are checked."""
        return self.values

    def __contains__(self, value: Setting) -> bool:
        return value in self.values


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high`, both included; an integer if both are."""

    low: float
    high: float

    @property
    def ends(self) -> tuple[Setting, ...]:
        """The values at which limits are checked."""
        return (self.low, self.high)

    def __contains__(self, value: Setting) -> bool:
        return not isinstance(value, str) and self.low <= value <= self.high


Dimension = Choices | Range


@dataclass(frozen=True)
class Space:
    """All candidates that an experiment may try.

    Attributes:
        free: Searched dimensions, by the names of `Candidate.settings`.
        start: Candidate with the values of all other settings.
        templates: Templates that `free` may choose, and that of `start`, by name.
        demonstrations: Demonstrations, best first; a candidate with n of them has the first n.
    """

    free: Mapping[str, Dimension]
    start: Candidate
    templates: Mapping[str, PromptTemplate]
    demonstrations: tuple[Demonstration, ...] = ()

    def distributions(self) -> dict[str, "BaseDistribution"]:
        """The free dimensions as Optuna distributions."""
        return {name: _distribution(dimension) for name, dimension in self.free.items()}

    def candidate(self, params: Mapping[str, Setting]) -> Candidate:
        """The candidate for Optuna's `params`; numbers are rounded to 2 decimals, for readability."""
        rounded = {name: round(v, 2) if isinstance(v, float) else v for name, v in params.items()}
        return with_settings(self.start, rounded, self.templates, self.demonstrations)

    def params(self, candidate: Candidate) -> dict[str, Setting] | None:
        """The inverse of `candidate`; None if it is outside the space."""
        params = {name: candidate.settings[name] for name in self.free}
        if "demonstrations" in params:
            shown, asked = len(candidate.demonstrations), self.free["demonstrations"]
            more = [one for one in asked.ends if float(one) > shown]
            if shown not in asked and more:  # fewer were found than were asked for
                params["demonstrations"] = min(more, key=float)
        inside = all(value in self.free[name] for name, value in params.items())
        return params if inside and self.candidate(params) == candidate else None

    def without(self, names: Iterable[str]) -> "Space":
        """The space with these settings fixed, at the start's value or, if that is outside, an end."""
        fixed = {name: self.free[name] for name in names}
        values = {
            name: value if (value := self.start.settings[name]) in dimension else dimension.ends[0]
            for name, dimension in fixed.items()
        }
        start = with_settings(self.start, values, self.templates, self.demonstrations)
        return replace(self, free={k: v for k, v in self.free.items() if k not in fixed}, start=start)

    def widened(self, texts: Iterable[PromptTemplate], demonstrations: Sequence[Demonstration]) -> "Space":
        """The space with more templates. New demonstrations replace those that it has."""
        templates = {**self.templates, **{text.name: text for text in texts}}
        free = dict(self.free)
        free["template"] = Choices(tuple(templates))
        shown = tuple(demonstrations) or self.demonstrations
        return replace(self, free=free, templates=templates, demonstrations=shown)


def with_settings(
    candidate: Candidate,
    settings: Mapping[str, Setting],
    templates: Mapping[str, PromptTemplate],
    demonstrations: Sequence[Demonstration] = (),
) -> Candidate:
    """`candidate` with some settings replaced, by their names in `Candidate.settings`.

    Raises:
        ConfigError: A value has the wrong type, or is out of range.
    """
    merged = {**candidate.settings, **settings}
    shown = int(check_number("demonstrations", merged.pop("demonstrations"), whole=True))
    template = templates[str(merged.pop("template"))]
    context = {name: merged.pop(name) for name in ("history", "layout", "show_rewards")}
    model = str(merged.pop("model", ""))
    sampling = SamplingParams.of(merged)
    context_settings = ContextSettings(**context)  # type: ignore[arg-type]
    return Candidate(template, sampling, context_settings, tuple(demonstrations[:shown]), model)


def _distribution(dimension: Dimension) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    match dimension:
        case Choices(values):
            return CategoricalDistribution(values)
        case Range(int(low), int(high)):
            return IntDistribution(low, high)
        case Range(low, high):
            hundredths = all(abs(end * 100 - round(end * 100)) < 1e-9 for end in (low, high))
            return FloatDistribution(low, high, step=0.01 if hundredths else None)


def read_space(table: Mapping[str, object], baseline: Candidate, find: FindTemplate) -> Space:
    """The space of `table` around `baseline`, with the templates that `find` finds.

    Raises:
        ConfigError: A key is unknown, a value has the wrong type or is out of range, or a range is empty.
    """
    dimensions: dict[str, Dimension] = {}
    templates = {baseline.template.name: baseline.template}
    known = [*baseline.settings, *(name for name in (*UNLISTED, "stop") if name not in baseline.settings)]
    for name, value in _flat(table):
        if name.startswith(EXTRA) and name not in baseline.settings:
            do = f"set baseline.{name} to the value in use today"
            raise ConfigError(f"The baseline has no {name}.", where=f"space.{name}", do=do)
        if name == "extra":
            raise ConfigError(f"extra is {value!r}.", where="space.extra", do="use a table of settings")
        if name == "model" and not baseline.model:
            do = "set baseline.model to the model in use today, of a table [models.NAME]"
            raise ConfigError("The baseline has no model.", where="space.model", do=do)
        if name not in known:
            raise unknown_key(name, known, where=f"space.{name}")
        try:
            dimensions[name] = _dimension(name, value)
            if name == "template":
                templates |= {str(end): find(str(end)) for end in dimensions[name].ends}
            for end in dimensions[name].ends:
                with_settings(baseline, {name: end}, templates)
        except ConfigError as error:
            raise ConfigError(error.what, where=f"space.{name}", why=error.why, do=error.do) from None
    fixed = {name: dimensions[name].ends[0] for name, value in _flat(table) if _is_one(name, value)}
    free = {name: dimension for name, dimension in dimensions.items() if name not in fixed}
    return Space(free, with_settings(baseline, fixed, templates), templates)


def _flat(table: Mapping[str, object]) -> list[tuple[str, object]]:
    """The table's keys, and those of `extra` with their prefix."""
    extra = table.get("extra")
    others = extra if isinstance(extra, Mapping) else {}
    own = [(name, value) for name, value in table.items() if name != "extra" or value is not others]
    return [*own, *((f"{EXTRA}{name}", value) for name, value in others.items())]


def _is_one(name: str, value: object) -> bool:
    """Whether a value fixes a setting, whose own value may be a list or a table."""
    if name == "stop":
        return not (isinstance(value, list) and any(isinstance(one, list) for one in value))
    return not isinstance(value, list | dict) or (
        name.startswith(EXTRA) and isinstance(value, dict) and not _is_range(value)
    )


def _is_range(value: Mapping[str, object]) -> bool:
    return value.keys() == {"low", "high"}


def _dimension(name: str, value: object) -> Dimension:
    if name == "stop" or (name.startswith(EXTRA) and not (isinstance(value, dict) and _is_range(value))):
        values = [value] if _is_one(name, value) else list(value)  # type: ignore[call-overload]
        if not values or (name == "stop" and not all(isinstance(one, list) for one in values)):
            raise ConfigError(f"{name} is {value!r}.", do="use a list of values; for stop, of lists")
        return Choices(tuple(json.dumps(one) if name == "stop" else extra_setting(one) for one in values))
    match value:
        case str() | bool() | int() | float():
            return Choices((value,))
        case list() if value and all(isinstance(item, str | bool | int | float) for item in value):
            return Choices(tuple(item for item in value if isinstance(item, str | bool | int | float)))
        case {"low": int() | float() as low, "high": int() | float() as high, **rest} if not rest:
            return _range(name, low, high)
    shapes = "a value, a list of values" + (", or { low = ..., high = ... }" if name in LIMITS else "")
    raise ConfigError(f"{name} is {value!r}.", do=f"use {shapes}")


def _range(name: str, low: float, high: float) -> Range:
    if name not in LIMITS and not name.startswith(EXTRA):
        raise ConfigError(f"{name} cannot be a range.", do="use a list of values")
    if not low < high:
        what = f"{name} has an empty range: low {low:g} is not below high {high:g}."
        raise ConfigError(what, do="use a low below high")
    is_whole = name in WHOLE or (name not in LIMITS and isinstance(low, int) and isinstance(high, int))
    return Range(low, high) if is_whole else Range(float(low), float(high))
