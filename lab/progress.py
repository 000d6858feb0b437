"""Progress: what the study is doing, on stderr; a line a trial, and a bar below where there is a terminal."""

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from lab.player import Tally
from lab.search import Trial


class ProgressView:
    """Shows the study while it runs. Model text is never printed here.

    Args:
        free: the settings that are searched; a trial's line shows these.
    """

    def __init__(self, free: Collection[str]) -> None:
        self._free = free
        self.console = Console(stderr=True, highlight=False)
        self._tally = Tally()
        self._started = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            _TallyColumn(self),
            console=self.console,
            transient=True,
        )
        self._best = float("-inf")

    def say(self, text: str) -> None:
        """One line of text."""
        self.console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def phase(self, name: str, total: int, tally: Tally) -> Iterator[None]:
        """Show a bar of `total` for what is done inside; the tally beside it is read as it grows."""
        self._tally, self._started = tally, time.monotonic()
        self._calls_before = tally.calls
        self._task = self._bar.add_task(name, total=total)
        if self.console.is_terminal:
            self._bar.start()
        try:
            yield
        finally:
            if self.console.is_terminal:
                self._bar.stop()
            self._bar.remove_task(self._task)

    def advance(self) -> None:
        """One more of the phase's total is done."""
        self._bar.advance(self._task)

    def trial(self, trial: Trial) -> None:
        """A line for a trial that has ended; a star marks a new best."""
        evaluation, settings = trial.evaluation, trial.candidate.settings
        star = "*" if evaluation.mean_return > self._best else " "
        self._best = max(self._best, evaluation.mean_return)
        figures = f"{evaluation.mean_return:7.1f} (n={len(evaluation.episodes)})"
        shown = " ".join(f"{name}={value}" for name, value in settings.items() if name in self._free)
        self.say(f"{star} {trial.name:<9} {figures}  {shown}")
        self.advance()

    def tally_text(self) -> str:
        """Calls so far and a second, and tokens."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        tally = self._tally
        tokens = tally.prompt_tokens + tally.completion_tokens
        return f"{tally.calls} calls, {(tally.calls - self._calls_before) / seconds:.1f}/s, {tokens:,} tokens"


class _TallyColumn(ProgressColumn):
    def __init__(self, view: ProgressView) -> None:
        super().__init__()
        self._view = view

    def render(self, task: Task) -> Text:  # noqa: ARG002
        return Text(self._view.tally_text())
