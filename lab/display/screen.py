"""The Screen: a running study as lines of text for a terminal of any size.

It owns the layout, as a pure function; drawing is `lab.display.live`'s. Model text never appears on it.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from rich.console import Console
from rich.text import Text

from lab.agent.evaluation import Trial
from lab.agent.step import total
from lab.display.race_table import Playing, is_modelled, table
from lab.experiment.budget import Spending
from lab.search.trouble_words import troubles_text
from lab.stats.format import count, percent, token_notes

PHASES = ("search", "confirmation", "holdout")

MESSAGES = 4
"""Lines of recent messages; the newest may take more, because it is not cut."""

ROOMY = 16
"""Minimum lines for showing more than the race."""

WIDE = 60
"""Minimum cells for the units after a bar."""

BETWEEN = "   "

BAR = 24
"""Width of a bar, at most, in cells."""

AFTER_BAR, AFTER_SHORT_BAR = 40, 23
"""Cells that are kept for the text after a bar, in a wide terminal and in others."""

_CONSOLE = Console(file=io.StringIO())
"""Rich asks for one to wrap text; nothing is printed to it."""


@dataclass(frozen=True)
class Progress:
    """How far a phase is.

    Attributes:
        name: One of PHASES.
        share: Share that is done, in [0, 1].
        minutes_left: Estimated minutes to its end; None if unknown.
        episodes: Numbers of ended and of planned episodes; None if their number is not planned.
    """

    name: str
    share: float
    minutes_left: float | None = None
    episodes: tuple[int, int] | None = None


@dataclass(frozen=True)
class Standing:
    """A study at one moment.

    Attributes:
        title: Study and model.
        phase: The current one of PHASES.
        phases: How far each phase is, in their order.
        race: Trials, best first.
        playing: The episodes that are being played.
        calls_per_s: Recent rate of calls per second; None if unknown yet.
        failed: Number of failed attempts at calls, and the last error.
        messages: Recent messages, oldest first.
    """

    title: str
    phase: str
    phases: Sequence[Progress]
    race: Sequence[Trial]
    playing: Sequence[Playing]
    spending: Spending
    calls_per_s: float | None
    failed: tuple[int, str]
    messages: Sequence[str]


def screen(standing: Standing, width: int, height: int) -> Text:
    """The whole screen, at most `height` lines of `width` cells; the race gets the remaining room."""
    is_roomy = height >= ROOMY
    head = _wrapped([Text(standing.title, style="bold")], width)
    head += _phases(standing, width, only_current=not is_roomy)
    foot = _wrapped([_counted(standing)], width)
    if is_roomy:
        head += [*_amounts(standing, width), Text()]
        foot += _wrapped(_warnings(standing), width)
        foot += [Text(), *_messages(standing.messages, width, height // 3)]
    room = height - len(head) - len(foot) - 1
    lines = [*head, *table(standing.race, standing.playing, width, room), *foot]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return Text("\n", no_wrap=True).join(lines[:height])


def _wrapped(texts: Sequence[Text], width: int) -> list[Text]:
    """The texts on as many lines as they need."""
    return [line for text in texts for line in text.wrap(_CONSOLE, width)]


def _messages(said: Sequence[str], width: int, most: int) -> list[Text]:
    """The newest message without a cut, at most `most` lines of it, below the starts of older ones."""
    *older, newest = [Text(line) for one in said for line in one.splitlines()] or [Text()]
    last = _wrapped([newest], width)[:most]
    room = max(MESSAGES - len(last), 0)
    return [*(Text(line.plain, style="dim") for line in older[len(older) - room :] if room), *last]


def _phases(standing: Standing, width: int, *, only_current: bool) -> list[Text]:
    """A line with a bar for each phase; Rich's own takes the text's room in a narrow terminal."""
    now = PHASES.index(standing.phase)
    named, is_wide = max(map(len, PHASES)), width >= WIDE
    bar = max(min(width - named - 2 - (AFTER_BAR if is_wide else AFTER_SHORT_BAR), BAR), 0)
    lines = []
    for one in standing.phases:
        place, minutes = PHASES.index(one.name), one.minutes_left
        if only_current and place != now:
            continue
        is_over = place < now
        done = bar if is_over and one.episodes is None else min(round(bar * one.share), bar)
        counted = "done" if is_over else percent(min(one.share, 1.0))
        if one.episodes is not None:
            counted = "{:,}/{:,}".format(*one.episodes) + (" episodes" if is_wide else "")
        if not is_over and minutes is not None and one.share < 1:
            left = f"{minutes * 60:.0f} s" if minutes < 1 else f"{minutes:.0f} min"
            counted += f", {'about ' if is_wide else ''}{left} left"
        line = Text(f"{one.name:<{named}} ", style="bold" if place == now else "" if is_over else "dim")
        line.append("━" * done, style="green").append("─" * (bar - done), style="dim")
        lines.append(line.append(f" {counted}"))
    return lines


def _amounts(standing: Standing, width: int) -> list[Text]:
    """What was spent, and how fast."""
    spent = standing.spending
    limit, rate = spent.budget, standing.calls_per_s
    told = [
        f"calls {spent.calls:,}{_of(limit.calls)}",
        f"tokens {spent.tokens:,}{_of(limit.tokens)}"
        f"{token_notes(spent.calls, spent.thinking_tokens, spent.estimated)}",
        f"{spent.money if spent.calls else '$-'}{_of(limit.dollars, '.2f')}",
        f"minutes {spent.limited_minutes:.1f}{_of(limit.minutes, 'g')}",
        f"{'-' if rate is None else f'{rate:.1f}'} calls/s, {spent.in_flight} in flight",
    ]
    return _flowing([Text(part) for part in told], width)


def _of(limit: float, form: str = ",.0f") -> str:
    return "" if limit == inf else f" of {limit:{form}}"


def _flowing(parts: Sequence[Text], width: int) -> list[Text]:
    """The parts side by side, on as many lines as needed."""
    lines = [parts[0]]
    for part in parts[1:]:
        if lines[-1].cell_len + len(BETWEEN) + part.cell_len <= width:
            lines[-1] = Text.assemble(lines[-1], BETWEEN, part)
        else:
            lines.append(part)
    return lines


def _warnings(standing: Standing) -> list[Text]:
    times, last = standing.failed
    told = [f"{times:,} failed attempts at calls; the last: {last}"] if times else []
    if troubles := troubles_text(total(trial.evaluation.troubles for trial in standing.race)):
        told.append(f"In the search, {troubles}")
    return [Text(one, style="yellow") for one in told]


def _counted(standing: Standing) -> Text:
    """How many have played, what is being played, and what the order means."""
    race, playing = standing.race, standing.playing
    dropped = sum(trial.dropped for trial in race)
    now = f"{sum(one.steps for one in playing)}/{sum(one.most for one in playing)} steps"
    told = ["no episode has ended yet"]
    if race:
        told = [f"{len(race)} played: {len(race) - dropped} still in the race, {dropped} dropped (x)"]
    if playing:
        told.append(f"now {now} of {count(len(playing), 'episode')}")
    if any(map(is_modelled, race)):
        told.append("best first, by the search model's estimate (interval: the model's)")
    elif race:
        told.append("best first, by the mean so far")
    return Text("; ".join(told), style="dim")
