"""The Screen: a running study as lines of text for a terminal of any size.

It owns the layout, as a pure function; drawing is `lab.display.live`'s. Model text never appears on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from rich.cells import set_cell_size
from rich.text import Text

from lab.agent.evaluation import BASELINE, Trial
from lab.agent.troubles import total
from lab.experiment.budget import Spending
from lab.search.trouble_words import troubles_text
from lab.stats.format import interval, mean, percent, token_notes
from lab.stats.intervals import Estimate

PHASES = ("warm-up", "search", "confirmation", "holdout")

MESSAGES = 4
"""Maximum number of recent messages shown."""

ROOMY = 16
"""Minimum lines for showing more than the race."""

BETWEEN = "   "

BAR, SHORT, GAP = 24, 7, 2
"""Widths in cells: of the bar, of a setting's short name, between columns."""

Cells = list[str]


@dataclass(frozen=True)
class Standing:
    """A study at one moment.

    Attributes:
        title: Study and model.
        phase: One of PHASES.
        race: Trials, best first, with mean value and 95 % interval; None before one is complete.
        rungs: Numbers of episodes after which a candidate is compared.
        calls_per_s: Recent rate of calls per second; None if unknown yet.
        failed: Number of failed attempts at calls, and the last error.
        messages: Recent messages, oldest first.
    """

    title: str
    phase: str
    race: Sequence[tuple[Trial, Estimate | None]]
    rungs: Sequence[int]
    spending: Spending
    calls_per_s: float | None
    failed: tuple[int, str]
    messages: Sequence[str]


def screen(standing: Standing, width: int, height: int) -> Text:
    """The whole screen, at most `height` lines of `width` cells; the race gets the remaining room."""
    head = [Text(standing.title, style="bold"), *_pace(standing, width)]
    foot = [_counted(standing)]
    if height >= ROOMY:
        head[1:1] = [_phases(standing.phase), *_amounts(standing.spending, width)]
        foot += _failed(*standing.failed)
        foot += _troubled([trial for trial, _ in standing.race])
        foot += [Text(line, style="dim") for said in standing.messages for line in said.splitlines()][
            -MESSAGES:
        ]
    lines = [*head, *_table(standing, width, height - len(head) - len(foot) - 1), *foot]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return Text("\n", no_wrap=True).join(lines[:height])


def rungs(most: int) -> tuple[int, ...]:
    """The rounds of the race: 1, 2, 4, ... and `most` episodes."""
    doubled = [1 << power for power in range(most.bit_length())]
    return (*(count for count in doubled if count < most), most)


def _phases(now: str) -> Text:
    reached, line = PHASES.index(now), Text()
    for place, phase in enumerate(PHASES):
        line.append(" > " if place else "", style="dim")
        line.append(phase, style="bold reverse" if place == reached else "" if place < reached else "dim")
    return line


def _amounts(spent: Spending, width: int) -> list[Text]:
    limit = spent.budget
    told = [
        f"calls {spent.calls:,}{_of(limit.calls)}",
        f"tokens {spent.tokens:,}{_of(limit.tokens)}"
        f"{token_notes(spent.calls, spent.thinking_tokens, spent.estimated)}",
        f"{spent.money if spent.calls else '$-'}{_of(limit.dollars, '.2f')}",
        f"minutes {spent.minutes:.1f}{_of(limit.minutes, 'g')}",
    ]
    return _flowing([Text(part) for part in told], width)


def _of(limit: float, form: str = ",.0f") -> str:
    return "" if limit == inf else f" of {limit:{form}}"


def _pace(standing: Standing, width: int) -> list[Text]:
    """The progress towards the nearest limit, as a bar and as text."""
    spent = standing.spending
    left = spent.minutes_left()
    share = 0.0 if left is None else spent.minutes / max(spent.minutes + left, 1e-9)
    done = round(BAR * share)
    drawn = Text().append("━" * done, style="green").append("─" * (BAR - done), style="dim")
    drawn.append(f" {share:.0%}" + ("" if left is None else f", about {_minutes(left)} left"))
    rate = "-" if standing.calls_per_s is None else f"{standing.calls_per_s:.1f}"
    return _flowing([drawn, Text(f"{rate} calls/s, {spent.in_flight} in flight")], width)


def _flowing(parts: Sequence[Text], width: int) -> list[Text]:
    """The parts side by side, on as many lines as needed."""
    lines = [parts[0]]
    for part in parts[1:]:
        if lines[-1].cell_len + len(BETWEEN) + part.cell_len <= width:
            lines[-1] = Text.assemble(lines[-1], BETWEEN, part)
        else:
            lines.append(part)
    return lines


def _minutes(minutes: float) -> str:
    return f"{minutes * 60:.0f} s" if minutes < 1 else f"{minutes:.0f} min"


def _failed(times: int, last: str) -> list[Text]:
    if not times:
        return []
    return [Text(f"{times:,} failed attempts at calls; the last: {last}", style="yellow")]


def _troubled(trials: Sequence[Trial]) -> list[Text]:
    told = troubles_text(total(trial.evaluation.troubles for trial in trials))
    return [Text(f"In the search, {told}", style="yellow")] if told else []


def _table(standing: Standing, width: int, room: int) -> list[Text]:
    shown = _shown(standing.race, room)
    if not shown:
        return [Text("No episode has ended yet.", style="dim")]
    figures = _figures(shown, standing.rungs)
    taken = sum(len(column[0]) + GAP for column in figures)
    columns = [*figures, *_settings([trial for trial, _ in shown], width - taken)]
    lines = []
    for place, cells in enumerate(zip(*columns, strict=True)):
        trial = shown[place - 1][0] if place else None
        style = "bold underline" if trial is None else _style(trial)
        lines.append(Text((" " * GAP).join(cells), style=style))
    return lines


def _shown(race: Sequence[tuple[Trial, Estimate | None]], room: int) -> list[tuple[Trial, Estimate | None]]:
    """The best trials, and always the baseline."""
    shown = list(race[: max(room, 1)])
    for one in race[room:]:
        if one[0].number == BASELINE:
            shown[-1] = one
    return shown


def _style(trial: Trial) -> str:
    if trial.dropped:
        return "dim"
    return "bold green" if trial.place == 1 else "cyan" if trial.number == BASELINE else ""


def _figures(shown: Sequence[tuple[Trial, Estimate | None]], rungs: Sequence[int]) -> list[Cells]:
    trials = [trial for trial, _ in shown]
    marks = ["x" if trial.dropped else "*" if trial.place == 1 else " " for trial in trials]
    names = [f"{mark} {trial.name}" for mark, trial in zip(marks, trials, strict=True)]
    means = [mean(estimate) if estimate else "cut" for _, estimate in shown]
    spans = [interval(estimate) if estimate and estimate.n > 1 else "" for _, estimate in shown]
    counts = [str(estimate.n if estimate else 0) for _, estimate in shown]
    reached = [sum(rung <= len(trial.evaluation.episodes) for rung in rungs) for trial in trials]
    shares = [trial.evaluation.troubles.share for trial in trials]
    unusable = [_column("unusable", [percent(share) if share else "" for share in shares], right=True)]
    return [
        _column("  trial", names),
        _column(trials[0].evaluation.measure, means, right=True),
        _column("95 % interval", spans, right=True),
        _column("n", counts, right=True),
        *(unusable if any(shares) else []),
        _column("rung", [f"{rung}/{len(rungs)}" for rung in reached], right=True),
    ]


def _settings(trials: Sequence[Trial], room: int) -> list[Cells]:
    """A column for each setting in which those that are shown differ; long names are cut where they must."""
    settings = [trial.candidate.settings for trial in trials]
    differ = [name for name in settings[0] if len({row[name] for row in settings}) > 1]
    cells = {name: [str(row[name]) for row in settings] for name in differ}
    whole = [_column(name, cells[name]) for name in differ]
    if sum(len(column[0]) + GAP for column in whole) <= room + GAP:
        return whole
    return [_column(name[: max(SHORT, *map(len, cells[name]))], cells[name]) for name in differ]


def _column(head: str, cells: Sequence[str], *, right: bool = False) -> Cells:
    wide = max(len(head), *map(len, cells))
    return [cell.rjust(wide) if right else set_cell_size(cell, wide) for cell in (head, *cells)]


def _counted(standing: Standing) -> Text:
    dropped = sum(trial.dropped for trial, _ in standing.race)
    tried = len(standing.race)
    counted = f"{tried} played: {tried - dropped} still in the race, {dropped} dropped (x)"
    return Text(f"{counted}; best first, by the search's model", style="dim")
