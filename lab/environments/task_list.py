"""A TaskList: the tasks that an environment offers, read from what its server lists and what its reset takes.

Submissions list their tasks at `/tasks`, in various forms. Whether a task can be played shows only when
it is reset.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lab.environments.schema import Schema, options
from lab.errors import ConfigError

TASK_ARGUMENTS = (
    "task_id",
    "task_name",
    "task",
    "task_type",
    "scenario_id",
    "scenario",
    "difficulty",
    "level",
)
"""Usual names of the reset argument that chooses a task, the most specific first."""

_GRADES = ("difficulty", "level")
"""Those of them of which a task's identifier is seldom a value."""

_IDENTIFIERS = {"task_id": "task_id", "id": "task_id", "task_name": "task_name", "name": "task_name"}
"""Usual names of the identifier in a listed task, and the argument that it probably belongs to."""

SESSION_KEYS = ("episode_id", "session_id")
"""Arguments that identify an episode, at servers that play several concurrently."""

_SET_BY_THE_LAB = ("seed", *SESSION_KEYS)
"""Arguments of reset that are not a task's."""


@dataclass(frozen=True)
class TaskList:
    """The tasks of an environment.

    Attributes:
        tasks: Arguments of reset by the task's name; empty if none are listed.
        takes: Names of the arguments that its reset publishes, without those that the lab sets.
        guessed: Whether it is a guess that reset's argument takes these values: it takes any argument, or
            tasks are listed by identifiers and reset takes a difficulty.
        max_steps: The largest `max_steps` of a listed task; None if none is listed.
    """

    tasks: Mapping[str, Mapping[str, Any]]
    takes: tuple[str, ...]
    guessed: bool
    max_steps: int | None = None


def reset_arguments(
    seed: int, arguments: Mapping[str, Any], takes: Collection[str], *, takes_any: bool
) -> dict[str, Any]:
    """A task's arguments of reset, with the seed if reset takes one.

    Raises:
        ConfigError: Reset does not take one of the arguments.
    """
    if unknown := [name for name in arguments if name not in takes and not takes_any]:
        what = f"The environment's reset has no argument {unknown[0]!r}."
        do = f"use {', '.join(takes)}" if takes else "remove it"
        raise ConfigError(what, where="tasks.reset", do=do)
    takes_seed = takes_any or "seed" in takes
    return {"seed": seed, **arguments} if takes_seed else {**arguments}


def read_tasks(listed: object, takes: Mapping[str, Schema], *, takes_any: bool) -> TaskList:
    """The tasks in a server's list, else those that an argument of its reset allows.

    Args:
        listed: What the server answers at `/tasks`; anything, None without an answer.
        takes: Schemas of reset's arguments, by name.
        takes_any: Whether reset accepts other arguments too.
    """
    takes = {name: schema for name, schema in takes.items() if name not in _SET_BY_THE_LAB}
    entries = list(_entries(listed))
    argument = next((name for name in TASK_ARGUMENTS if name in takes), "")
    guessed = not argument and takes_any
    if guessed:
        keys = {key for entry in entries for key in entry}
        argument = next((name for key, name in _IDENTIFIERS.items() if key in keys), "")
    allowed = [value for one in options(takes.get(argument, {})) for value in one.get("enum", [])]
    if argument and allowed and not any(_value(entry, argument) in allowed for entry in entries):
        entries = [{argument: value} for value in allowed]
    guessed = guessed or (argument in _GRADES and any(argument not in entry for entry in entries))
    tasks = dict[str, Mapping[str, Any]]()
    for entry in entries if argument else []:
        value = _value(entry, argument)
        if isinstance(value, str | int) and {argument: value} not in tasks.values():
            tasks.setdefault(_name(value, entry, argument), {argument: value})
    steps = [entry["max_steps"] for entry in entries if type(entry.get("max_steps")) is int]
    return TaskList(tasks, tuple(takes), guessed, max(steps, default=None))


def _entries(listed: object) -> Iterator[Mapping[str, Any]]:
    """The listed tasks as objects: a list of objects or identifiers, objects by name, or lists by group."""
    if isinstance(listed, dict):
        listed = listed.get("tasks", listed)
    if isinstance(listed, dict):
        by_name = [{"id": key, **one} for key, one in listed.items() if isinstance(one, dict)]
        listed = by_name or [one for group in listed.values() if isinstance(group, list) for one in group]
    for one in listed if isinstance(listed, list) else []:
        if isinstance(one, dict):
            yield one
        elif isinstance(one, str):
            yield {"id": one}


def _value(entry: Mapping[str, Any], argument: str) -> object:
    """What a listed task says of the argument that chooses it."""
    return next((entry[key] for key in (argument, *_IDENTIFIERS) if key in entry), None)


def _name(value: str | int, entry: Mapping[str, Any], argument: str) -> str:
    """A name for `[[tasks]]`, without blanks."""
    told = value if isinstance(value, str) else entry.get("name", f"{argument}_{value}")
    return re.sub(r"[^\w.-]+", "_", str(told)).strip("_") or argument
