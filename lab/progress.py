"""Progress: what the study is doing, on stderr; a line a trial, and a bar below where there is a terminal."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from lab.errors import plain
from lab.spending import Spending
from lab.trial import Trial


class ProgressView:
    """Shows the study while it runs. Model text is never printed here.

    Args:
        free: the settings that are searched; a trial's line shows these.
        quiet: show nothing.
    """

    def __init__(self, free: Collection[str], *, quiet: bool = False) -> None:
        self._free = free
        self.console = Console(stderr=True, highlight=False, quiet=quiet)
        self._spending = Spending()
        self._later_calls = 0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            _SpendingColumn(self),
            console=self.console,
            transient=True,
        )

    def say(self, text: str) -> None:
        """One line of text, which may hold an endpoint's or a library's own words."""
        self.console.print(plain(text), markup=False, soft_wrap=True)

    @contextmanager
    def watching(self, spending: Spending, later_calls: int) -> Iterator[None]:
        """Show a bar of the search's share of the budget; `later_calls` are kept for the verdict."""
        self._spending, self._later_calls = spending, later_calls
        self._task = self._bar.add_task("search", total=1.0)
        if self.console.is_terminal:
            self._bar.start()
        try:
            yield
        finally:
            if self.console.is_terminal:
                self._bar.stop()
            self._bar.remove_task(self._task)

    def trial(self, trial: Trial) -> None:
        """A line for a trial that has ended a rung: a star marks the incumbent, an x one that is dropped."""
        evaluation, settings = trial.evaluation, trial.candidate.settings
        mark = "x" if trial.dropped else "*" if trial.place == 1 else " "
        mean = f"{evaluation.mean_return:7.1f}" if evaluation.episodes else "    cut"
        figures = f"{mean} (n={len(evaluation.episodes)})"
        shown = " ".join(f"{name}={value}" for name, value in settings.items() if name in self._free)
        self.say(f"{mark} {trial.name:<9} {figures}  {shown}")
        self._bar.update(self._task, completed=min(self._spending.progress(self._later_calls), 1.0))

    def spending_text(self) -> str:
        """Calls so far and a minute, calls in flight, and tokens."""
        spent = self._spending
        rate = spent.calls / max(spent.minutes, 1e-9)
        return f"{spent.calls} calls, {rate:.0f}/min, {spent.in_flight} in flight, {spent.tokens:,} tokens"


class _SpendingColumn(ProgressColumn):
    def __init__(self, view: ProgressView) -> None:
        super().__init__()
        self._view = view

    def render(self, task: Task) -> Text:  # noqa: ARG002
        return Text(self._view.spending_text())
