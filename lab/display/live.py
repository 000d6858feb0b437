"""The live screen's hold on the terminal: taken while a study is watched, and given back however that ends.

It draws on the terminal's other screen, as an editor does, so that a resize leaves no trace and what was
there before is there again. It owns when it draws; what is drawn comes from outside.
"""

import asyncio
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress

from rich.console import Console
from rich.live import Live
from rich.text import Text

EVERY_S = 0.5
"""Between two drawings: a person sees no more, and each costs some milliseconds."""

Draw = Callable[[int, int], Text]
"""The screen for so many cells and lines."""


def is_possible(console: Console) -> bool:
    """Whether the console is a terminal that a screen can be drawn on, whatever FORCE_COLOR says."""
    return console.is_interactive and not console.is_dumb_terminal and console.file.isatty()


@contextmanager
def shown(console: Console, draw: Draw, say: Callable[[str], None]) -> Iterator[None]:
    """Draw again and again until the context is left; the running loop does it.

    Args:
        say: told of each line that something writes to stderr meanwhile.
    """
    live = Live(
        console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
    )
    drawing = asyncio.get_running_loop().create_task(_drawing(live, console, draw))
    with suppress(OSError):  # the terminal is gone: the study is not
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
    """A stream that hands on whole lines."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._rest = say, ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._say(line)
        return len(text)
