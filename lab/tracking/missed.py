"""What MLflow did not take of a study, and why, in its own words.

It owns how failures are counted and told: many that are alike are one line. Who tries again is
`lab.tracking.tracker`'s.
"""

import re
from collections import defaultdict
from collections.abc import Callable

from lab.errors import plain, without_credentials

MOST_CHARACTERS = 300
"""Of a reason: some of MLflow's hold a whole SQL statement."""

NAMED = 3
"""Items that a line names before it counts the others."""

STUDY = "the study"


class Missed:
    """The items that were refused and not taken later; a reason is told when it first occurs.

    Attributes:
        whole: nothing of the study was taken, since the store could not be opened.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self.whole = False
        self._reasons = dict[str, str]()
        self._items = dict[str, str]()

    def add(self, what: str, error: Exception | str) -> None:
        """MLflow refused `what`."""
        reason = _reason(error)
        kind = re.sub(r"\b[0-9a-f]{16,}\b|\d+", "#", reason)  # ids differ where the cause is the same
        if kind not in self._reasons:
            self._reasons[kind] = reason
            self._warn(f"MLflow did not take {what}: {reason}")
        self._items[what] = self._reasons[kind]

    def took(self, what: str) -> None:
        """MLflow took `what`, perhaps at a second attempt."""
        self._items.pop(what, None)

    def add_all(self, error: Exception) -> None:
        """The store could not be opened."""
        self.whole = True
        self.add(STUDY, error)

    def took_all(self) -> None:
        """The store is open."""
        self.whole = False
        self.took(STUDY)

    @property
    def lines(self) -> list[str]:
        """A line for each reason, with what was refused for it."""
        by_reason = defaultdict[str, list[str]](list)
        for what, reason in list(self._items.items()):
            by_reason[reason].append(what)
        return [f"{_listed(items)}: {reason}" for reason, items in by_reason.items()]


def is_gone(error: Exception) -> bool:
    """Whether MLflow's server did not answer at all, so that any other request would wait as long."""
    told = str(error)
    return bool(re.search(r"failed with (timeout )?exception", told)) and "too many" not in told


def _reason(error: Exception | str) -> str:
    told = " ".join(str(error).split())
    if isinstance(error, Exception):
        told = f"{type(error).__name__}: {told}"
    return plain(without_credentials(told))[:MOST_CHARACTERS]


def _listed(items: list[str]) -> str:
    if len(items) <= NAMED:
        return ", ".join(items)
    return f"{', '.join(items[: NAMED - 1])} and {len(items) - NAMED + 1:,} more"
