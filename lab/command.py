"""A command's manners: what every `python -m lab.<name>` shares.

An expected error is printed to stderr in its few lines and ends with its exit code; `--debug` adds where it
came from. What a command does is its own module's.
"""

import asyncio
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from lab.errors import LabError, first_of

INTERRUPTED = 130

_STOPS = (KeyboardInterrupt, asyncio.CancelledError)

Debug = Annotated[
    bool, typer.Option("--debug", help="Show where an error comes from, with Python's own traceback.")
]


def command_line() -> typer.Typer:
    """An application of one command, whose errors are the lab's own words."""
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@contextmanager
def manners(*, debug: bool, interrupted: str = "Stopped.") -> Iterator[None]:
    """Run a command's body: an expected error, or Ctrl-C, is told in words and becomes the exit code.

    Args:
        interrupted: what Ctrl-C leaves behind, in a sentence.
    """
    try:
        yield
    except (LabError, BaseExceptionGroup) as raised:
        error = first_of(raised)
        if isinstance(error, LabError):
            if debug:
                traceback.print_exception(error)
            typer.echo(str(error), err=True)
            sys.exit(error.exit_code)
        if isinstance(error, _STOPS):
            _stop(interrupted)
        raise
    except _STOPS:
        _stop(interrupted)


def _stop(said: str) -> None:
    typer.echo(said, err=True)
    sys.exit(INTERRUPTED)
