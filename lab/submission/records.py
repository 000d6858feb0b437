"""Records: the tables of a frozen file as dataclasses, with every mistake in them; its candidate.

The file is read before START is printed, so only the standard library is used.
"""

from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, replace
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from lab.agent.candidate import Candidate, ContextSettings, Demonstration
from lab.agent.template import PromptTemplate
from lab.errors import ConfigError, unknown_key
from lab.llm.sampling import SamplingParams

Record = TypeVar("Record")

_RIGHT = Candidate(PromptTemplate("name", "system", "turn"))
"""Settings on which others are tried."""


class Records:
    """Reads tables, and notes what is wrong with them.

    Attributes:
        found: The mistakes so far, each with its key.
    """

    def __init__(self) -> None:
        self.found = list[ConfigError]()
        self._strange = False

    def read(
        self, cls: type[Record], table: object, where: str, right: Record | None = None
    ) -> Record | None:
        """The dataclass `cls` of a table's values; None if it has mistakes.

        Args:
            right: A valid one of a class that checks each value by itself: each is tried on it.
        """
        if not isinstance(table, dict):
            if not self._strange:  # else one of those is this table, with another name
                self.found.append(ConfigError(f"The table [{where}] is missing.", where=where))
            return None
        wrong = list(_mistakes(cls, table, where, right))
        self.found += wrong
        return None if wrong else self.made(lambda: cls(**table), where)

    def made(self, make: Callable[[], Record], where: str) -> Record | None:
        """What `make` returns; None if it raises."""
        try:
            return make()
        except ConfigError as error:
            self.found.append(error)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            self.found.append(ConfigError(f"{type(error).__name__}: {error}", where=where))
        return None

    def check_names(self, table: dict[str, Any], known: list[str], above: str = "") -> None:
        """Note each key that is unknown, of the whole file or of the table `above`."""
        self.found += [unknown_key(name, known, where=above + name) for name in table if name not in known]
        self._strange = bool(self.found)


def read_candidate(table: object, records: Records) -> Candidate | None:
    """The candidate of its table; None if it has mistakes, which `records` notes."""
    if not isinstance(table, dict):
        return records.read(Candidate, table, "candidate")
    own = Records()  # a name that is unknown here explains no missing table elsewhere
    own.check_names(table, [one.name for one in fields(Candidate)], "candidate.")
    own.read(PromptTemplate, table.get("template"), "candidate.template", _RIGHT.template)
    own.read(SamplingParams, table.get("sampling"), "candidate.sampling", _RIGHT.sampling)
    own.read(ContextSettings, table.get("context"), "candidate.context", _RIGHT.context)
    shown, model = table.get("demonstrations", ()), table.get("model", "")
    own.made(lambda: [Demonstration.from_table(one) for one in shown], "candidate.demonstrations")
    if not isinstance(model, str):
        what = f"model is {model!r}, but must be of type str."
        own.found.append(ConfigError(what, where="candidate.model"))
    records.found += own.found
    return None if own.found else records.made(lambda: Candidate.from_table(table), "candidate")


def _mistakes(cls: type, table: dict[str, Any], where: str, right: Any) -> Iterator[ConfigError]:  # noqa: ANN401  # an instance of `cls`
    """Unknown and missing keys, and values of a wrong type; an unknown key may be the missing one."""
    required = {one.name: one.default is one.default_factory is MISSING for one in fields(cls)}
    hints = get_type_hints(cls)
    for name, value in table.items():
        if name not in required:
            yield unknown_key(name, list(required), where=f"{where}.{name}")
        elif right is not None:
            yield from _refused(right, name, value, f"{where}.{name}")
        elif not _fits(value, _kinds(hints[name])):
            kind = _kinds(hints[name])[0].__name__
            yield ConfigError(f"{name} is {value!r}, but must be of type {kind}.", where=f"{where}.{name}")
    for name in required if table.keys() <= required.keys() else ():
        if required[name] and name not in table:
            yield ConfigError(f"{name} is missing.", where=f"{where}.{name}")


def _refused(right: Any, name: str, value: object, where: str) -> Iterator[ConfigError]:  # noqa: ANN401
    """Why a value cannot be in a dataclass that is valid otherwise."""
    try:
        replace(right, **{name: value})
    except ConfigError as error:
        yield ConfigError(error.what, where=where, why=error.why, do=error.do)
    except (AttributeError, TypeError, ValueError) as error:
        yield ConfigError(f"{name} is {value!r}.", where=where, why=str(error))


def _fits(value: object, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) or (float in kinds and isinstance(value, int))


def _kinds(hint: Any) -> tuple[type, ...]:  # noqa: ANN401  # a type's annotation
    if get_origin(hint) is UnionType:
        return tuple(kind for option in get_args(hint) for kind in _kinds(option))
    if get_origin(hint) is Literal:
        return (str,)
    return (get_origin(hint) or hint,)
