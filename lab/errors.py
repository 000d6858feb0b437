"""Every expected failure of the lab: one base class, one exit code each, four lines for people at most.

Low layers raise them; only the command lines and `inference.py` print them.
"""

from typing import ClassVar


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
        self.what, self.where, self.why, self.do = what, where, why, do

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


class CallError(LabError):
    """One model call failed after the client's own retries; another call may do."""

    exit_code = 3


class EnvError(LabError):
    """The environment could not be opened, or failed while an episode was played."""

    exit_code = 4


class BudgetError(LabError):
    """The budget ended the study before there was anything to judge."""

    exit_code = 5


def _one_line(text: str) -> str:
    """`text` on one line, without the terminal escapes that an endpoint's own words may carry."""
    return "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))


def first_of(error: BaseException) -> BaseException:
    """The first failure of many: tasks that fail together fail for one reason."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
