"""The race as a table: a line for each candidate, as many columns as a terminal of any width has room for.

It owns which candidates and columns are shown. A return is the figure that the race's order follows: the
search model's estimate with its interval, or the mean so far, without one, before there is a model. Rich's
own table would shrink all columns where this one leaves out the least important.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import set_cell_size
from rich.text import Text

from lab.agent.candidate import Candidate
from lab.agent.evaluation import BASELINE, Trial, trial_name
from lab.stats.format import interval, mean, percent

SHORT, GAP = 7, 2
"""Widths in cells: of a setting's short name, between columns."""

LEAST = 2
"""Columns of figures that are shown at any width: trial and return."""

Cells = list[str]


@dataclass(frozen=True)
class Playing:
    """An episode that is being played.

    Attributes:
        number: Number of its candidate's trial.
        steps, most: Number of steps played, and their maximum.
    """

    number: int
    candidate: Candidate
    steps: int
    most: int


@dataclass(frozen=True)
class _Row:
    """A candidate; `trial` is None before its first episode has ended."""

    number: int
    candidate: Candidate
    trial: Trial | None
    playing: Sequence[Playing]

    @property
    def mark(self) -> str:
        if self.trial is None:
            return " "
        return "x" if self.trial.dropped else "*" if self.trial.place == 1 else " "

    @property
    def style(self) -> str:
        if self.trial and self.trial.dropped:
            return "dim"
        if self.mark == "*":
            return "bold green"
        return "cyan" if self.number == BASELINE else ""

    @property
    def steps(self) -> str:
        """Steps of its running episodes, played and at most."""
        if not self.playing:
            return ""
        return f"{sum(one.steps for one in self.playing)}/{sum(one.most for one in self.playing)}"


def _rows(race: Sequence[Trial], playing: Sequence[Playing]) -> list[_Row]:
    """The ranked trials, best first, then those whose first episode is being played."""
    by_number = dict[int, list[Playing]]()
    for one in playing:
        by_number.setdefault(one.number, []).append(one)
    ranked = [_Row(one.number, one.candidate, one, by_number.pop(one.number, [])) for one in race]
    return ranked + [_Row(number, of[0].candidate, None, of) for number, of in sorted(by_number.items())]


def table(race: Sequence[Trial], playing: Sequence[Playing], width: int, room: int) -> list[Text]:
    """The race on at most `room` lines and the head's.

    Args:
        race: Trials, best first.
        playing: The episodes that are being played.
        width: Width in cells.
    """
    shown = _shown(_rows(race, playing), room)
    if not shown:
        return [Text("No episode has begun yet.", style="dim")]
    figures = _figures(shown, race)
    while len(figures) > LEAST and _width(figures) > width:
        figures.pop()
    left = width - _width(figures) - GAP
    columns = [*figures, *(_settings([row.candidate for row in shown], left) if left >= SHORT else [])]
    styles = ["bold underline", *(row.style for row in shown)]
    return [
        Text((" " * GAP).join(cells), style=style)
        for cells, style in zip(zip(*columns, strict=True), styles, strict=True)
    ]


def is_modelled(trial: Trial) -> bool:
    """Whether a trial has the search model's interval."""
    return trial.expected is not None and trial.expected.bounded


def _width(columns: Sequence[Cells]) -> int:
    return sum(len(column[0]) for column in columns) + GAP * (len(columns) - 1)


def _shown(rows: Sequence[_Row], room: int) -> list[_Row]:
    """The best trials, and always the baseline."""
    shown = list(rows[: max(room, 1)])
    for row in rows[max(room, 1) :]:
        if row.number == BASELINE:
            shown[-1] = row
    return shown


def _figures(shown: Sequence[_Row], race: Sequence[Trial]) -> list[Cells]:
    """The columns of figures, the most important first."""
    trials = [row.trial for row in shown]
    estimates = [trial.expected if trial else None for trial in trials]
    modelled = [trial.expected if trial and is_modelled(trial) else None for trial in trials]
    shares = [trial.evaluation.troubles.share if trial else 0.0 for trial in trials]
    counts = [str(len(trial.evaluation.episodes)) if trial else "0" for trial in trials]
    measure = race[0].evaluation.measure if race else "return"
    columns = [_column("  trial", [f"{row.mark} {trial_name(row.number)}" for row in shown])]
    columns.append(_column(measure, [mean(one) if one else "" for one in estimates], right=True))
    if any(modelled):
        columns.append(
            _column("95 % interval", [interval(one) if one else "" for one in modelled], right=True)
        )
    columns.append(_column("n", counts, right=True))
    if any(shares):
        columns.append(_column("unusable", [percent(one) if one else "" for one in shares], right=True))
    if any(row.playing for row in shown):
        columns.append(_column("steps", [row.steps for row in shown], right=True))
    return columns


def _settings(candidates: Sequence[Candidate], room: int) -> list[Cells]:
    """A column for each setting in which those that are shown differ; long names are cut where they must."""
    settings = [one.settings for one in candidates]
    differ = [name for name in settings[0] if len({row[name] for row in settings}) > 1]
    cells = {name: [str(row[name]) for row in settings] for name in differ}
    whole = [_column(name, cells[name]) for name in differ]
    if sum(len(column[0]) + GAP for column in whole) <= room + GAP:
        return whole
    return [_column(name[: max(SHORT, *map(len, cells[name]))], cells[name]) for name in differ]


def _column(head: str, cells: Sequence[str], *, right: bool = False) -> Cells:
    wide = max(len(head), *map(len, cells))
    return [cell.rjust(wide) if right else set_cell_size(cell, wide) for cell in (head, *cells)]
