"""The items of a study that MLflow did not take, with its reasons.

It owns counting and reporting failures: similar ones share a line. Retries are `lab.tracking.tracker`'s.
"""

import re
from collections import defaultdict
from collections.abc import Callable

from lab.errors import plain, without_credentials

MOST_CHARACTERS = 300
"""Maximum characters of a reason: some of MLflow's contain a whole SQL statement."""

NAMED = 3
"""Maximum items that a line names; more are counted."""

STUDY = "the study"
"""The item that is missing if the store could not be opened."""


class Missed:
    """The items that MLflow did not take, not even later; warns when a reason first occurs."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._reasons = dict[str, str]()
        self._items = dict[str, str]()

    def add(self, what: str, error: Exception | str) -> None:
        """Record that MLflow did not take `what`."""
        reason = _reason(error)
        kind = re.sub(r"\b[0-9a-f]{16,}\b|\d+", "#", reason)  # ids differ where the cause is the same
        if kind not in self._reasons:
            self._reasons[kind] = reason
            self._warn(f"MLflow did not take {what}: {reason}")
        self._items[what] = self._reasons[kind]

    def took(self, what: str) -> None:
        """Record that MLflow took `what`, perhaps at a second attempt."""
        self._items.pop(what, None)

    @property
    def whole(self) -> bool:
        """Whether the whole study is missing."""
        return STUDY in self._items

    @property
    def lines(self) -> list[str]:
        """A line for each reason, with its items."""
        by_reason = defaultdict[str, list[str]](list)
        for what, reason in list(self._items.items()):
            by_reason[reason].append(what)
        return [f"{_listed(items)}: {reason}" for reason, items in by_reason.items()]


def is_gone(error: Exception) -> bool:
    """Whether MLflow's server did not answer at all, so that other requests would wait as long."""
    text = str(error)
    return bool(re.search(r"failed with (timeout )?exception", text)) and "too many" not in text


def _reason(error: Exception | str) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, Exception):
        text = f"{type(error).__name__}: {text}"
    return plain(without_credentials(text))[:MOST_CHARACTERS]


def _listed(items: list[str]) -> str:
    if len(items) <= NAMED:
        return ", ".join(items)
    return f"{', '.join(items[: NAMED - 1])} and {len(items) - NAMED + 1:,} more"
