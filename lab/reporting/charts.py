"""The charts of a study: race, candidates, cost against return, reward by step.

They are drawn here and not by a library, because the page carries what draws it: Vega-Lite would add 832 KB
(BSD-3), plotly.js in its basic build 1,192 KB (MIT), Bokeh 1,388 KB (BSD-3), and none shows a chart without
scripts. The whole page of a small study has 250 KB.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from math import isfinite

from lab.agent.evaluation import BASELINE, Trial
from lab.reporting import svg
from lab.reporting.story import CONFIDENCE, Story, expected_of
from lab.stats.format import count, estimate_text, number
from lab.stats.intervals import Estimate, t_interval
from lab.verdict.verdict import estimate

WIDTH, HEIGHT = 760, 340
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 36, 48
NAMES, COUNTS = 110, 64
"""Room for the names and the counts beside a chart's rows."""

MOST_ROWS = 30
"""Maximum candidates in a chart; the table has all."""

ROW = 20

SHAPES = {"search": 0, "confirmation": 2, "holdout": 3}
"""Shape of an episode's mark by its phase."""

Points = list[tuple[float, float]]


def frame(
    xs: Sequence[float], ys: Sequence[float], width: int = WIDTH, height: int = HEIGHT, *, zero: bool = False
) -> svg.Frame:
    """Axes with room for all points; `zero` is for the horizontal one."""
    across = svg.scale(xs, LEFT, width - RIGHT, zero=zero)
    return svg.Frame(width, height, across, svg.scale(ys, height - BOTTOM, TOP))


@dataclass(frozen=True)
class Rows:
    """A chart with one row for each item.

    Attributes:
        parts: Its axis and the names of its rows.
    """

    size: tuple[int, int]
    x: svg.Scale
    parts: list[str]

    def middle(self, place: int) -> float:
        """The vertical position of a row."""
        return TOP + ROW * (place + 0.5)


def rows_of(names: Sequence[str], x: svg.Scale, axis: str, width: int = WIDTH, most: int = 60) -> Rows:
    """A chart with rows of these names, and a horizontal axis below them.

    Args:
        most: Maximum characters of a name.
    """
    bottom, middle = TOP + ROW * len(names), (x.start + x.end) / 2
    parts = [svg.line(x.start, bottom, x.end, bottom, "axis")]
    for value in x.ticks:
        parts.append(svg.line(x(value), TOP, x(value), bottom + 4, "grid"))
        parts.append(svg.label(x(value), bottom + 17, svg.tick_text(value), anchor="middle", style="tick"))
    parts.append(svg.label(middle, bottom + 34, axis, anchor="middle", style="name"))
    rows = Rows((width, bottom + BOTTOM), x, parts)
    for place, name in enumerate(names):
        y = rows.middle(place) + 4
        parts.append(svg.label(x.start - 6, y, name, anchor="end", style="tick", most=most))
    return rows


def race(story: Story) -> str:
    """Every whole episode's value over time, and the leader's mean."""
    ended = [(play, play.earned) for play in story.plays if play.earned is not None]
    until = max((play.ended for play, _ in ended), default=1.0)
    values = [*(earned for _, earned in ended), *(reign.mean for reign in story.reigns)]
    axis = frame([*(play.ended for play, _ in ended), 0.0], values, zero=True)
    parts = [svg.axes(axis, "minutes of work", f"{story.measure} of an episode")]
    for play, earned in svg.sampled(ended):
        says = svg.hint(f"{play.name or 'unnamed'}, {play.phase}, seed {play.seed}", (story.measure, earned))
        x, y, style = axis.x(play.ended), axis.y(earned), _colour(play.name, story)
        parts.append(svg.mark(x, y, SHAPES[play.phase], style, says, 3.2))
    says = f"{count(len(ended), 'whole episode')} in {number(until)} minutes."
    if story.reigns:
        last = story.reigns[-1]
        searched = max((play.ended for play, _ in ended if play.phase == "search"), default=until)
        corners = [*((reign.minute, reign.mean) for reign in story.reigns), (searched, last.mean)]
        parts.append(svg.path(_stepped([(axis.x(x), axis.y(y)) for x, y in corners]), "incumbent"))
        says += f" {last.name} was the last leader, with a mean of {number(last.mean)} over {last.episodes}."
    return svg.chart("race-chart", (WIDTH, HEIGHT), "The race over time", says, parts)


def _stepped(points: Points) -> Points:
    """A line that keeps its height until the next point."""
    corners = (((right[0], left[1]), right) for left, right in pairwise(points))
    return [*points[:1], *chain.from_iterable(corners)]


def lanes(story: Story) -> str:
    """The episodes over time: a row per candidate, a bar per episode."""
    places = {trial.name: place for place, trial in enumerate(_best(story))}
    plays = [play for play in story.plays if play.name in places]
    x = svg.scale([0.0, *(play.ended for play in plays)], NAMES, WIDTH - RIGHT, zero=True)
    rows = rows_of(list(places), x, "minutes of work")
    for place in places.values():
        below = rows.middle(place) + 9
        rows.parts.append(svg.line(x.start, below, x.end, below, "grid"))
    for play in plays:
        left, wide = x(play.began), max(x(play.ended) - x(play.began), 1.5)
        earned = "cut or failed" if play.earned is None else f"{story.measure} {number(play.earned)}"
        says = f"{play.name}, {play.phase}, seed {play.seed}, {earned}"
        style = f"lane {play.phase}{' broken' if play.earned is None else ''}"
        y = rows.middle(places[play.name]) - 6
        rows.parts.append(svg.box(min(left, x.end - wide), y, wide, 12, style, says))
    says = f"{count(len(plays), 'episode')} of {count(len(places), 'candidate')}, best first."
    return svg.chart("lanes-chart", rows.size, "Episodes over time", says, rows.parts)


def candidates(story: Story) -> str:
    """Expected value and interval of each candidate, best first, with its own mean and the holdout's."""
    shown, unseen = _best(story), dict[str, Estimate]()
    if story.outcome:
        verdict = story.outcome.verdict
        unseen = {name: estimate(one, verdict.confidence) for name, one in verdict.holdout.items()}
    estimates = {trial.name: expected_of(trial) for trial in shown}
    known = [*ends_of([*estimates.values(), *unseen.values()]), *(trial.evaluation.mean for trial in shown)]
    x = svg.scale(known, NAMES, WIDTH - COUNTS)
    rows = rows_of(list(estimates), x, f"expected mean {story.measure} of an episode")
    for place, trial in enumerate(shown):
        y, own = rows.middle(place), x(trial.evaluation.mean)
        style = f"{_colour(trial.name, story)}{' dropped' if trial.dropped else ''}"
        rows.parts.append(whisker(estimates[trial.name], x, y, 0, style, f"{trial.name}, expected"))
        rows.parts.append(svg.line(own, y - 6, own, y + 6, f"own {style}"))
        if trial.name in unseen:
            name = f"{trial.name}, holdout"
            rows.parts.append(whisker(unseen[trial.name], x, y + 5, 3, "unseen", name))
        rows.parts.append(svg.label(x.end + 6, y + 4, f"n = {len(trial.evaluation.episodes)}", style="tick"))
    says = "; ".join(f"{name} {number(one.mean)}" for name, one in list(estimates.items())[:5])
    title = f"{story.measure.capitalize()} per candidate"
    return svg.chart("candidates-chart", rows.size, title, f"Best first: {says}.", rows.parts)


def pareto(story: Story) -> str:
    """Expected value against mean tokens per episode, with the Pareto front."""
    trials = story.trials
    points = [(trial.evaluation.tokens, expected_of(trial).mean) for trial in trials]
    axis = frame([x for x, _ in points], [y for _, y in points])
    places = [(axis.x(x), axis.y(y)) for x, y in points]
    front = pareto_front(points)
    special = {place for place, trial in enumerate(trials) if trial.name in story.shown}
    parts = [
        svg.axes(axis, "mean tokens per episode, prompt and completion", f"expected mean {story.measure}")
    ]
    parts.append(svg.path(_stepped([places[place] for place in front]), "front"))
    drawn = {*svg.sampled(range(len(trials))), *front, *special}
    for place in sorted(drawn, key=lambda place: (place in special, place)):  # on top
        trial, (tokens, expected), (x, y) = trials[place], points[place], places[place]
        name = f"{trial.name} (n = {len(trial.evaluation.episodes)})"
        says = svg.hint(name, (f"expected {story.measure}", expected), ("tokens", tokens))
        style = f"{_colour(trial.name, story)}{'' if place in special or place in front else ' faint'}"
        shape = 1 if trial.number == BASELINE else 0
        parts.append(svg.mark(x, y, shape, style, says, 6.0 if place in special else 4.5))
    parts += _names(axis, {trials[one].name: places[one] for one in {*special, *front[:1], *front[-1:]}})
    says = f"On the front, from cheap to expensive: {', '.join(trials[place].name for place in front)}."
    title = f"{story.measure.capitalize()} against tokens"
    return svg.chart("pareto-chart", (WIDTH, HEIGHT), title, says, parts)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points on the Pareto front of (cost, value), by cost."""
    front: list[int] = []
    for place in sorted(range(len(points)), key=lambda place: (points[place][0], -points[place][1])):
        if not front or points[place][1] > points[front[-1]][1]:
            front.append(place)
    return front


def steps(story: Story) -> str:
    """Mean reward of each step with its interval, of the baseline and the chosen candidate."""
    rows = step_rows(story)
    if not rows:
        return ""
    known = [end for row in rows.values() for one in row for end in (one.low, one.high, one.mean)]
    last = max(map(len, rows.values()))
    x = svg.scale([1.0, float(last)], LEFT, WIDTH - RIGHT)
    axis = svg.Frame(WIDTH, HEIGHT, x, svg.scale(known, HEIGHT - BOTTOM, TOP, zero=True))
    parts = [svg.axes(axis, "step", "mean reward", range(1, last + 1))]
    for place, (name, row) in enumerate(rows.items()):
        style = _colour(name, story)
        upper = [(x(step), axis.y(one.high)) for step, one in enumerate(row, 1) if isfinite(one.high)]
        lower = [(x(step), axis.y(one.low)) for step, one in enumerate(row, 1) if isfinite(one.low)]
        if upper:
            parts.append(svg.area([*upper, *reversed(lower)], style))
        parts.append(svg.path([(x(step), axis.y(one.mean)) for step, one in enumerate(row, 1)], style))
        for step, one in enumerate(row, 1):
            says = f"{name}, step {step}: {estimate_text(one)}, n = {one.n}"
            parts.append(svg.mark(x(step), axis.y(one.mean), place, style, says))
    told = "; ".join(f"{name}: {', '.join(number(one.mean) for one in row)}" for name, row in rows.items())
    says = f"Mean rewards from the first step on. {told}."
    return svg.chart("steps-chart", (WIDTH, HEIGHT), "Reward by step", says, parts)


def step_rows(story: Story) -> dict[str, list[Estimate]]:
    """Mean rewards by step of the baseline and the chosen candidate, over episodes that reached the step."""
    rows = {}
    for name in sorted(story.shown, key=lambda name: name != "baseline"):
        played = [episode.rewards for episode in story.shown[name].episodes]
        longest = max(map(len, played))
        rewards = [[one[place] for one in played if len(one) > place] for place in range(longest)]
        rows[name] = [t_interval(values, CONFIDENCE) for values in rewards]
    return {name: row for name, row in rows.items() if row}


def _best(story: Story) -> list[Trial]:
    """The best trials, and always the baseline."""
    return [one for place, one in enumerate(story.trials) if place < MOST_ROWS or one.number == BASELINE]


def _colour(name: str, story: Story) -> str:
    return "base" if name == "baseline" else "chosen" if name in story.shown else "other"


def whisker(one: Estimate, x: svg.Scale, y: float, shape: int, style: str, name: str) -> str:
    """A mean with its interval; hollow without one."""
    says = f"{name}: {estimate_text(one) if one.bounded else number(one.mean)}, n = {one.n}"
    bar = svg.line(x(one.low), y, x(one.high), y, f"whisker {style}") if one.bounded else ""
    return bar + svg.mark(x(one.mean), y, shape, f"{style}{'' if one.bounded else ' single'}", says)


def ends_of(estimates: Sequence[Estimate]) -> list[float]:
    """The range of an axis: all means, and intervals up to the same range again on each side.

    An interval of two episodes can be so wide that nothing else could be distinguished.
    """
    means = [one.mean for one in estimates] or [0.0]
    low, high = min(means), max(means)
    room = max([high - low, *(one.high - one.mean for one in estimates if one.n > 2)])
    ends = [end for one in estimates for end in (one.low, one.high)]
    return [*means, *(min(max(end, low - room), high + room) for end in ends if isfinite(end))]


def _names(axis: svg.Frame, points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The points' labels, on the side with room, and below a label that is in the way."""
    middle = (axis.x.start + axis.x.end) / 2
    parts, taken = [], Points()
    for name, (x, height) in sorted(points.items(), key=lambda point: point[1][1]):
        y = max(height - 6, 12.0)
        while any(abs(x - there) < 90 and abs(y - row) < 13 for there, row in taken):
            y += 13
        taken.append((x, y))
        anchor, beside = ("start", x + 8) if x < middle else ("end", x - 8)
        parts.append(svg.label(beside, min(y, axis.height - 4), name, anchor=anchor, style="point"))
    return parts
