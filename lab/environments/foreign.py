"""Foreign code: whatever an environment or a hook raises becomes one ordinary exception.

`SystemExit` would end the process with exit code 0, and `CancelledError` a task, both silently.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from lab.errors import LabError


class ForeignError(Exception):
    """Foreign code raised `__cause__`; the message is its type and its text."""


@contextmanager
def foreign() -> Iterator[None]:
    """Run foreign code, awaited or not. A cancellation of the current task is passed on.

    Raises:
        ForeignError: The code raised anything other than a LabError.
    """
    before = _cancellations()
    try:
        yield
    except LabError:
        raise
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and _cancellations() > before:
            raise
        raise ForeignError(raised(error)) from error


def raised(error: BaseException) -> str:
    """An exception's type and text."""
    try:
        text = str(error)
    except BaseException:  # `__str__` is foreign code too
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _cancellations() -> int:
    """Number of times the current task was cancelled; 0 in a thread without an event loop."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return 0
    return task.cancelling() if task else 0
