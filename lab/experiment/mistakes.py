"""The mistakes of an experiment file, all of them in one reading, each with its file and line.

After a mistake the file is read again with a value in its place that cannot cause another one, as compilers
recover from errors. So mistakes are found wherever they are raised, and consequences of another mistake are
left out.
"""

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from math import inf
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from lab.agent.template import FindTemplate, PromptTemplate
from lab.errors import ConfigError, MistakeError, MistakesError, nearest, unknown_key
from lab.experiment.schema import ExperimentFile
from lab.files import line_of, line_with
from lab.llm.sampling import EXTRA

Read = TypeVar("Read")

_PLACES = ("python", "url", "image", "space")

_STAND_INS: dict[str, Any] = {
    "about": "",
    "environment": {"python": "stand_in:Environment"},
    "task": {
        "name": "",
        "benchmark": "",
        "max_steps": 1,
        "max_tokens": 1,
        "max_return": inf,
        "success_score": 0.0,
    },
    "model": {"endpoint": "embedded", "name": ""},
    "baseline": {"template": "", "temperature": 0.0, "max_tokens": 1, "history": 0},
    "space": {},
    "budget": {"calls": 1},
    "proposals": {"proposer": "gepa"},
    "verdict": {"episodes": 2},
}
"""Valid values of keys that must not be absent. In place of any other mistaken value, the default applies."""


@dataclass
class Mended:
    """An experiment file's content, with a valid value in place of each mistake found so far.

    Attributes:
        table: The content, mended.
        found: The mistakes.
    """

    path: Path
    text: str
    table: dict[str, Any]
    found: list[MistakeError] = field(default_factory=list)
    _wrong: set[str] = field(default_factory=set)

    def read(self, reader: Callable[[ExperimentFile], Read]) -> Read | None:
        """What `reader` makes of the content, mended as often as needed; None if that does not help."""
        mended = True
        while mended:
            try:
                return reader(ExperimentFile.model_validate(self.table))
            except ValidationError as error:
                mended = self._mend_model(error)
            except ConfigError as error:
                self.note(error)
                mended = self._replace(error.where)
        return None

    def note(self, error: ConfigError) -> None:
        """Add a mistake, unless it only follows from another one at the same key, or below it."""
        key = error.where
        of_baseline = key.replace("space", "baseline", 1)
        if key.startswith((f"space.{EXTRA}", "space.model")) and self.is_wrong(of_baseline):
            return
        if not any(one == key or one.startswith(f"{key}.") for one in self._wrong):
            self.found.append(MistakeError(error, self.path, line_of(self.text, key), key))
            self._wrong.add(key)

    def is_wrong(self, *keys: str) -> bool:
        """Whether a mistake concerns one of these keys, tables that hold them, or keys that they hold."""
        pairs = [(f"{one}.", f"{key}.") for one in self._wrong for key in keys]
        return any(one.startswith(key) or key.startswith(one) for one, key in pairs)

    def finder(self, find: FindTemplate, key: str) -> FindTemplate:
        """`find` for the templates that `key` names, which notes a mistake and returns a valid template."""

        @cache
        def found(name: str) -> PromptTemplate:
            try:
                return find(name)
            except MistakesError as error:
                self.found += error.found
            except MistakeError as error:
                self.found.append(error)
            except ConfigError as error:
                if not self.is_wrong(key):
                    line = line_of(self.text, key)
                    line = line_with(self.text, f'"{name}"', line) or line
                    self.found.append(MistakeError(error, self.path, line, key))
            return PromptTemplate(name, "-", "-")

        return found

    def _mend_model(self, error: ValidationError) -> bool:
        mended = False
        # A misspelt key is also a missing one; so the misspelling comes first, and is corrected.
        for one in sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden"):
            key = ".".join(map(str, one["loc"]))
            if one["type"] == "extra_forbidden":
                known = _keys_beside(one["loc"])
                self.note(unknown_key(key, known, where=key))
                self._rename(key, known)
                mended = True
                continue
            table, name, _ = self._holder(key)
            if one["type"] == "missing":
                if name in table:
                    continue
                do = "set it; docs/experiment.md lists every key"
                self.note(ConfigError(f"{key} is missing.", where=key, do=do))
            else:
                what = f"{key} is wrong." if isinstance(one["input"], dict) else f"{key} is {one['input']!r}."
                self.note(ConfigError(what, where=key, do=one["msg"].lower()))
            mended |= self._replace(key)
        return mended

    def _rename(self, key: str, known: Iterable[str]) -> None:
        """Correct a misspelt key, or remove an unknown one."""
        table, name, _ = self._holder(key)
        value = table.pop(name)
        if near := nearest(name, [one for one in known if one not in table]):
            table[near] = value

    def _replace(self, key: str) -> bool:
        """Replace a mistaken value by its stand-in or default; returns whether that changes anything."""
        table, name, stand_ins = self._holder(key)
        before = dict(table)
        if (table is self.table.get("environment") and name in _PLACES) or key == "environment":
            others = self.table.get("environment")
            others = others if isinstance(others, dict) else {}
            table, before = self.table, dict(self.table)
            kept = {one: value for one, value in others.items() if one not in _PLACES}
            table["environment"] = kept | _STAND_INS["environment"]
        elif name in stand_ins:
            table[name] = deepcopy(stand_ins[name])
        else:
            table.pop(name, None)
        if key == "baseline.model":  # without it, the baseline needs [model]
            self.table["model"] = deepcopy(_STAND_INS["model"])
        return table != before

    def _holder(self, key: str) -> tuple[dict[str, Any], str, dict[str, Any]]:
        """The table that has the value of a key or lacks it, the name there, and that table's stand-ins."""
        table, stand_ins, rest = self.table, _STAND_INS, key
        while rest not in table:
            name, dot, below = rest.partition(".")
            inner, (index, item, after) = table.get(name), below.partition(".")
            if isinstance(inner, dict) and dot:
                of_a_model = table is self.table.get("models")
                stand_ins = _STAND_INS["model"] if of_a_model else stand_ins.get(name, {})
                table, rest = inner, below
            elif isinstance(inner, list) and item and isinstance(inner[int(index)], dict):
                table, rest, stand_ins = inner[int(index)], after, {"name": f"task-{index}"}
            else:
                return table, name, stand_ins
        return table, rest, stand_ins


def _keys_beside(loc: tuple[int | str, ...]) -> list[str]:
    table: type[BaseModel] = ExperimentFile
    parts = iter(loc[:-1])
    for part in parts:
        if isinstance(part, int):
            continue
        annotation = table.model_fields[part].annotation
        if get_origin(annotation) is dict:
            next(parts)  # the name of one of the tables
            annotation = get_args(annotation)[1]
        elif isinstance(annotation, UnionType) or get_origin(annotation) is list:
            annotation = get_args(annotation)[0]
        assert isinstance(annotation, type)
        table = annotation
    return list(table.model_fields)
