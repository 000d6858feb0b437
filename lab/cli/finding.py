"""A Finding: the result of one of the doctor's checks, and its line."""

from collections.abc import Callable
from dataclasses import dataclass

from lab.errors import LabError, MistakesError


@dataclass(frozen=True)
class Finding:
    """The result of one check, printed as one line.

    Attributes:
        wrong: Error of a failed check.
        looked: False if the check was skipped because an earlier one failed.
        shown: A text below the line.
        of: NAME of the table `[models.NAME]` that it is about; empty for any other.
    """

    about: str
    said: str
    wrong: LabError | None = None
    looked: bool = True
    warned: bool = False
    shown: str = ""
    of: str = ""

    def __str__(self) -> str:
        about = f"{self.about:<12} {f'{self.of}: ' if self.of else ''}"
        if self.wrong is None:
            mark = "warn" if self.warned else "ok" if self.looked else "-"
            shown = "".join(f"\n      {line}" for line in self.shown.splitlines())
            return f"{mark:<4}  {about}{self.said}{shown}"
        if isinstance(self.wrong, MistakesError):
            return f"FAIL  {about}{self.wrong}"
        do = f"; try: {self.wrong.do}" if self.wrong.do else ""
        return f"FAIL  {about}{self.wrong.one_line}{do}"


def looked(about: str, look: Callable[[], str], of: str = "") -> Finding:
    """The finding of `look`, which returns what it has seen, or raises a LabError."""
    try:
        return Finding(about, look(), of=of)
    except LabError as error:
        return Finding(about, "", error, of=of)
