"""The `[space]` table of an experiment file: a value fixes a dimension, a list or {low, high} frees it.

It owns that syntax and how a mistake in it is told; what is not named keeps the baseline's value.
"""

from collections.abc import Mapping
from pathlib import Path

from lab.candidate import LIMITS, Candidate
from lab.errors import ConfigError, unknown_key
from lab.prompt import PromptTemplate, find_template
from lab.space import Choices, Dimension, Range, Space, with_settings

WHOLE = ("max_tokens", "history", "demonstrations")
"""The settings that are whole numbers."""


def read_space(table: Mapping[str, object], baseline: Candidate, folder: Path) -> Space:
    """The space that `table` describes around `baseline`, with its templates from `folder`.

    Raises:
        ConfigError: a key is unknown, a value of the wrong kind or out of range, a range or list empty.
    """
    dimensions: dict[str, Dimension] = {}
    templates = {baseline.template.name: baseline.template}
    for name, value in table.items():
        if name not in baseline.settings:
            raise unknown_key(name, baseline.settings, where=f"space.{name}")
        try:
            dimensions[name] = _dimension(name, value)
            if name == "template":
                templates |= _load(dimensions[name], folder)
            for end in dimensions[name].ends:
                with_settings(baseline, {name: end}, templates)
        except ConfigError as error:
            raise ConfigError(error.what, where=f"space.{name}", why=error.why, do=error.do) from None
    fixed = {name: dimensions[name].ends[0] for name, value in table.items() if _is_one(value)}
    free = {name: dimension for name, dimension in dimensions.items() if name not in fixed}
    return Space(free, with_settings(baseline, fixed, templates), templates)


def _is_one(value: object) -> bool:
    return not isinstance(value, list | dict)


def _dimension(name: str, value: object) -> Dimension:
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
    if name not in LIMITS:
        raise ConfigError(f"{name} has no range.", do="use a list of values")
    if not low < high:
        what = f"{name} has an empty range: low {low:g} is not below high {high:g}."
        raise ConfigError(what, do="give a low that is below high")
    return Range(low, high) if name in WHOLE else Range(float(low), float(high))


def _load(dimension: Dimension, folder: Path) -> dict[str, PromptTemplate]:
    names = [str(name) for name in dimension.ends]
    return {name: find_template(folder, name) for name in names}
