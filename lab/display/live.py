"""The live screen: occupies the terminal while a study is watched, and restores it afterwards in any case.

It draws on the terminal's alternate screen, as an editor does, so that a resize leaves no trace and the
previous content reappears. It owns the timing; the content comes from its caller.
"""

import asyncio
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress

from rich.console import Console
from rich.live import Live
from rich.text import Text

EVERY_S = 0.5
"""Seconds between two drawings: people see no more, and each takes some milliseconds."""

Draw = Callable[[int, int], Text]
"""Draws the screen for a width in cells and a height in lines."""


def is_possible(console: Console) -> bool:
    """Whether the console is a terminal that supports a live screen, regardless of FORCE_COLOR."""
    return console.is_interactive and not console.is_dumb_terminal and console.file.isatty()


@contextmanager
def shown(console: Console, draw: Draw, say: Callable[[str], None]) -> Iterator[None]:
    """Redraw periodically on the running event loop, until the block ends.

    Args:
        say: Called with each line written to stderr meanwhile.
    """
    live = Live(
        console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
    )
    drawing = asyncio.get_running_loop().create_task(_drawing(live, console, draw))
    with suppress(OSError):  # the terminal is gone, but the study continues
        live.start()
    try:
        with redirect_stderr(_Lines(say)):
            yield
    finally:
        drawing.cancel()
        with suppress(OSError):
            live.stop()


async def _drawing(live: Live, console: Console, draw: Draw) -> None:
    while True:
        with suppress(OSError):
            live.update(draw(*console.size), refresh=True)
        await asyncio.sleep(EVERY_S)


class _Lines(io.TextIOBase):
    """A stream that passes on whole lines."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._rest = say, ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._say(line)
        return len(text)
