"""Progress of the study on stderr: a live screen on a terminal, else one line per trial."""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from lab.agent.evaluation import Trial
from lab.display import live
from lab.display.race_table import Playing
from lab.display.screen import MESSAGES, PHASES, Progress, Standing, screen
from lab.errors import LabError, plain
from lab.experiment.budget import Spending
from lab.search.trouble_words import troubles_brief
from lab.stats.format import number

LATE_S = 20.0
"""Seconds over which the rate of calls is computed."""


@dataclass
class Watched:
    """A study to watch.

    Attributes:
        title: Study and model.
        race: Returns the trials, best first; called only after changes, when `stale` was set.
        playing: Returns the episodes that are being played.
        phases: Returns how far each phase is.
    """

    title: str
    spending: Spending
    race: Callable[[], list[Trial]]
    playing: Callable[[], list[Playing]]
    phases: Callable[[], list[Progress]]
    stale: bool = True

    def __post_init__(self) -> None:
        self._race = list[Trial]()
        self._counts = deque[tuple[float, int]]()

    def standing(self, phase: str, failed: tuple[int, str], messages: Sequence[str]) -> Standing:
        """The study at this moment; the other figures are as in `Standing`."""
        if self.stale:
            self.stale, self._race = False, self.race()
        playing, phases, rate = self.playing(), self.phases(), self._calls_per_s(time.monotonic())
        return Standing(self.title, phase, phases, self._race, playing, self.spending, rate, failed, messages)

    def _calls_per_s(self, now: float) -> float | None:
        """Calls per second over the last `LATE_S` seconds."""
        self._counts.append((now, self.spending.calls))
        while now - self._counts[0][0] > LATE_S:
            self._counts.popleft()
        (first, before), (last, calls) = self._counts[0], self._counts[-1]
        return (calls - before) / (last - first) if last - first > 1 else None


class ProgressView:
    """Shows the study while it runs. Model text is never printed here.

    Args:
        free: Searched settings, which a trial's line shows.
        quiet: Whether to show nothing.
    """

    def __init__(self, free: Collection[str], *, quiet: bool = False) -> None:
        self._free = free
        self.console = Console(file=sys.stderr, highlight=False, quiet=quiet)
        self._can_be_live = not quiet and live.is_possible(self.console)
        self._shows, self._lock = False, threading.Lock()
        self._held = list[str]()
        self._last = deque[str](maxlen=MESSAGES)
        self._phase, self._failed = PHASES[0], (0, "")
        self._watched: Watched | None = None

    def say(self, text: str) -> None:
        """Print one line, which may contain an endpoint's or a library's text; callable from any thread."""
        line = plain(text)
        with self._lock:
            self._last.append(line)
            if self._shows:
                self._held.append(line)
            else:
                self._print(line)

    @contextmanager
    def watching(self, watched: Watched) -> Iterator[None]:
        """Show a live screen on a terminal; lines printed meanwhile appear when it ends."""
        if not self._can_be_live:
            yield
            return
        self._watched, self._shows = watched, True

        def draw(width: int, height: int) -> Text:
            return screen(watched.standing(self._phase, self._failed, list(self._last)), width, height)

        try:
            with live.shown(self.console, draw, self.say):
                yield
        finally:
            with self._lock:
                self._shows = False
                for line in self._held:
                    self._print(line)

    def trial(self, trial: Trial) -> None:
        """Show a trial that has completed a round: * marks the leader, x a dropped one."""
        if self._watched is not None:
            self._watched.stale = True
            return
        evaluation, settings = trial.evaluation, trial.candidate.settings
        mark = "x" if trial.dropped else "*" if trial.place == 1 else " "
        mean = number(evaluation.mean) if evaluation.episodes else "cut"
        figures = f"{mean:>7} (n={len(evaluation.episodes)})"
        shown = " ".join(f"{name}={value}" for name, value in settings.items() if name in self._free)
        troubles = troubles_brief(evaluation.troubles)
        self.say(f"{mark} {trial.name:<9} {figures}  {f'[{troubles}]  ' if troubles else ''}{shown}")

    def phase(self, name: str) -> None:
        """Set the study's phase, one of `lab.display.screen.PHASES`."""
        self._phase = name

    def failed(self, error: LabError) -> None:
        """Count a failed attempt at a call, which may be retried."""
        self._failed = (self._failed[0] + 1, plain(error.what))

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, soft_wrap=True)
