"""Every expected failure of the lab: one base class, one exit code each, four lines for people at most.

Low layers raise them; only the command lines and `inference.py` print them.
"""

import re
from collections.abc import Iterable
from typing import ClassVar

MOST_CHARACTERS = 500
"""Of one line of an error: an endpoint may answer with a whole page."""

MOST_KEPT = 4000
"""Characters of each text of an error that are kept: a foreign page may be large, and hard to search in."""


class LabError(Exception):
    """An expected failure, told to the user as what happened, where, why, and what to do next.

    Args:
        what: what happened, in one sentence.
        where: the file and key, the variable, or the URL.
        why: the cause, as far as it is known.
        do: the command or change to try next.
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
        """The same in a single line, for a `[STEP]` line's `error` field or a table's cell."""
        return ": ".join(_one_line(text) for text in (self.what, self.where, self.why) if text)


class ConfigError(LabError):
    """A flag, variable, experiment file or template that cannot be used as it is."""

    exit_code = 2


class FrozenPromptError(ConfigError):
    """A frozen prompt that is absent, damaged, or changed since it was frozen."""


class EndpointError(LabError):
    """The model's endpoint failed in a way that no repeat of the call will mend."""

    exit_code = 3


class LocalModelError(EndpointError):
    """The embedded model is not installed, or did not start."""


class NoKeyError(EndpointError):
    """The endpoint does not take the key, or there is none for it."""


class UnreachableError(EndpointError):
    """There was no connection to the endpoint: a wrong address, or a server that is down for a while."""


class CallError(LabError):
    """One model call failed; another attempt may do.

    Attributes:
        answered: tokens in and out of an answer that could not be used; None where there was no answer.
    """

    exit_code = 3
    answered: tuple[int, int] | None = None


class OutageError(CallError):
    """The endpoint gave no answer to this attempt."""


class SlowError(OutageError):
    """There was no answer in time: fewer calls at a time may do."""


class BusyError(OutageError):
    """The endpoint asks to be called less: it is no fault of the call's.

    Attributes:
        retry_after_s: seconds that the endpoint asked to be left alone; 0 where it named none.
    """

    def __init__(
        self, what: str, *, where: str = "", why: str = "", do: str = "", retry_after_s: float = 0.0
    ) -> None:
        super().__init__(what, where=where, why=why, do=do)
        self.retry_after_s = retry_after_s


class RequestError(CallError):
    """The endpoint refused this very request, and will refuse it again: the candidate is at fault."""


class EnvError(LabError):
    """The environment could not be opened, or failed while an episode was played."""

    exit_code = 4


class BrokenError(EnvError):
    """The environment was reset, and failed at an action or right after it: the action may be the cause."""


class BudgetError(LabError):
    """The budget ended the study before there was anything to judge."""

    exit_code = 5


def plain(text: str) -> str:
    """`text` without what a terminal or a page would act on: foreign words may carry such escapes."""
    if text.replace("\n", "").isprintable():  # as nearly all are: the walk over all of it would be slow
        return text
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)


def without_credentials(text: str) -> str:
    """`text` with its URLs cut to what may be shown: libraries put a password or a token into theirs."""
    text = re.sub(r"(?<=://)[^\s/?#'\"]*@", "", text)
    return re.sub(r"(\w://[^\s?'\"]+)\?[^\s'\"]*", r"\1", text)


def _kept(text: str) -> str:
    """A text as an error holds it: of bounded length, without credentials, and fit to be written."""
    writable = text[:MOST_KEPT].encode("utf-8", "replace").decode("utf-8")  # it may hold a lone surrogate
    return without_credentials(writable)


def meant(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """What to try where `name` does not exist: the known one that is nearest to it, else `otherwise`."""
    import difflib

    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]}?" if near else otherwise


def unknown_key(name: str, known: Iterable[str], *, where: str) -> ConfigError:
    """The error for a key that does not exist, with the one that was probably meant."""
    known = list(known)
    do = meant(name.rpartition(".")[2], known, f"the keys are {', '.join(known)}")
    return ConfigError(f"Unknown key {name!r}.", where=where, do=do)


def _one_line(text: str) -> str:
    """`text` on one line of bounded length, without the terminal escapes that foreign words may carry."""
    line = " ".join(text[: 2 * MOST_CHARACTERS].split())
    line = line if len(line) <= MOST_CHARACTERS else line[:MOST_CHARACTERS] + " ..."
    return plain(line)


def first_of(error: BaseException) -> BaseException:
    """The first failure of many: tasks that fail together fail for one reason."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
