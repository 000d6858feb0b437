"""Every expected failure of the lab: one base class, an exit code for each, and at most four lines of text,
or one for each of several mistakes.

Low layers raise them; only the command lines and `inference.py` print them.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

MOST_CHARACTERS = 500
"""Maximum length of one line of an error: an endpoint may answer with a whole page."""

MOST_KEPT = 4000
"""Characters kept of each text of an error: a foreign page may be large, and slow to search."""


class LabError(Exception):
    """An expected failure: what happened, where, why, and what to do next.

    Args:
        what: What happened, in one sentence.
        where: File and key, variable, or URL.
        why: The cause, as far as known.
        do: The command or change to try next, as an imperative.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", why: str = "", do: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.why = map(_kept, (what, where, why))
        self.do = do

    def __str__(self) -> str:
        labelled = [("where", self.where), ("why", self.why), ("try", self.do)]
        return "\n".join([self.what, *(f"  {label}: {_one_line(text)}" for label, text in labelled if text)])

    @property
    def one_line(self) -> str:
        """The error in one line, for a `[STEP]` line's `error` field or a table cell."""
        what, *rest = map(_one_line, (self.what, *filter(None, (self.where, self.why))))
        return " ".join([what, ": ".join(rest)]) if rest and what.endswith(".") else ": ".join([what, *rest])


class ConfigError(LabError):
    """An invalid flag, variable, experiment file or template."""

    exit_code = 2


def place(file: Path, line: int) -> str:
    """`file:line`, which editors and terminals open; the file alone if the line is 0."""
    return f"{file}:{line}" if line else str(file)


class MistakeError(ConfigError):
    """A mistake in a file that people write.

    Attributes:
        line: Its line, from 1; 0 if unknown.
        key: Key such as `search.episodes`; empty for the whole file.
    """

    def __init__(self, error: ConfigError, file: Path, line: int = 0, key: str = "") -> None:
        self.file, self.line, self.key = file, line, key
        where = ", ".join(filter(None, [place(file, line), key]))
        super().__init__(error.what, where=where, why=error.why, do=error.do)

    @property
    def told(self) -> str:
        """`file:line: what is wrong; what to do`."""
        name = self.key.rpartition(".")[2]
        what = (self.what if name in self.what else f"{self.key}: {self.what}").removesuffix(".")
        why = f" ({_one_line(self.why)})" if self.why else ""
        do = f"; {_one_line(self.do)}" if self.do else ""
        return f"{plain(place(self.file, self.line))}: {_one_line(what)}{why}{do}"


class MistakesError(ConfigError):
    """Several mistakes, each in one line, by file and line."""

    def __init__(self, found: Iterable[MistakeError], do: str = "") -> None:
        ordered = sorted(found, key=lambda one: (one.file, one.line))
        self.found = tuple({one.told: one for one in ordered}.values())
        super().__init__(f"{len(self.found)} mistakes:", do=do)

    def __str__(self) -> str:
        tries = [f"  try: {self.do}"] if self.do else []
        return "\n".join([self.what, *(one.told for one in self.found), *tries])

    @property
    def one_line(self) -> str:
        """All of them in one line."""
        return f"{self.what} {' | '.join(one.told for one in self.found)}"


def all_of(found: Iterable[MistakeError]) -> MistakeError | MistakesError:
    """The error for these mistakes, of which there is at least one."""
    mistakes = MistakesError(found)
    return mistakes if len(mistakes.found) > 1 else mistakes.found[0]


class FrozenPromptError(ConfigError):
    """A frozen prompt that is missing, damaged, or changed since it was frozen."""


class FrozenMistakesError(MistakesError, FrozenPromptError):
    """A frozen prompt that is damaged in several places."""


class EndpointError(LabError):
    """The model's endpoint failed, and retrying the call does not help."""

    exit_code = 3


class LocalModelError(EndpointError):
    """The embedded model is not installed, or did not start."""


class NoKeyError(EndpointError):
    """The endpoint refused the key, or no key is set for it."""


class UnreachableError(EndpointError):
    """No connection to the endpoint: a wrong address, or a server that is temporarily down."""


class CallError(LabError):
    """One model call failed; a retry may succeed.

    Attributes:
        answered: Prompt and completion tokens of an unusable answer; None if there was no answer.
    """

    exit_code = 3
    answered: tuple[int, int] | None = None


class OutageError(CallError):
    """The endpoint did not answer this attempt."""


class SlowError(OutageError):
    """The answer did not arrive in time; fewer concurrent calls may help."""


class BusyError(OutageError):
    """The endpoint asks for fewer calls; the call itself is not at fault.

    Attributes:
        retry_after_s: Seconds to wait, as requested by the endpoint; 0 if it gave none.
    """

    retry_after_s: float = 0.0


class RequestError(CallError):
    """The endpoint refused this request and will refuse it again: the candidate is at fault."""


class EnvError(LabError):
    """The environment could not be opened, or failed during an episode."""

    exit_code = 4


class BrokenError(EnvError):
    """The environment failed at an action, or right after it: the action may be the cause."""


class BudgetError(LabError):
    """The budget ended the study before a verdict was possible."""

    exit_code = 5


def plain(text: str) -> str:
    """`text` with control characters made visible: foreign text may contain terminal escapes."""
    if text.replace("\n", "").isprintable():  # the common case; the loop below is slow
        return text
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)


def writable(text: str) -> str:
    """`text` without lone surrogates, which JSON may contain, but which can be neither sent nor written."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode("utf-8")
    return text  # itself, not a copy: an echo is stored once


def without_credentials(text: str) -> str:
    """`text` with passwords and queries removed from its URLs: libraries put tokens there."""
    text = re.sub(r"(?<=://)[^\s/?#'\"]*@", "", text)
    return re.sub(r"(\w://[^\s?'\"]+)\?[^\s'\"]*", r"\1", text)


def _kept(text: str) -> str:
    """`text` with bounded length, without credentials, and encodable as UTF-8."""
    return without_credentials(writable(text[:MOST_KEPT]))


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that a misspelt one resembles; empty if none does."""
    import difflib

    return next(iter(difflib.get_close_matches(name, list(known), n=1)), "")


def meant(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """What to try if `name` does not exist: the nearest known name, else `otherwise`."""
    near = nearest(name, known)
    return f"did you mean {near}?" if near else otherwise


def unknown_key(name: str, known: Iterable[str], *, where: str) -> ConfigError:
    """The error for an unknown key, with the nearest known one."""
    known = list(known)
    do = meant(name.rpartition(".")[2], known, f"the keys are {', '.join(known)}")
    return ConfigError(f"Unknown key {name!r}.", where=where, do=do)


def _one_line(text: str) -> str:
    """`text` on one line of bounded length, without terminal escapes."""
    line = " ".join(text[: 2 * MOST_CHARACTERS].split())
    line = line if len(line) <= MOST_CHARACTERS else line[:MOST_CHARACTERS] + " ..."
    return plain(line)


def first_of(error: BaseException) -> BaseException:
    """The first error in a group: tasks that fail together fail for one reason."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
