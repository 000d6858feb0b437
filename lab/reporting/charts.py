"""The charts of a study: race, candidates, cost against return, reward by step.

They are drawn here and not by a library, because the page carries what draws it: Vega-Lite would add 832 KB
(BSD-3), plotly.js in its basic build 1,192 KB (MIT), Bokeh 1,388 KB (BSD-3), and none shows a chart without
scripts. The whole page of a small study has 250 KB.
"""

from collections.abc import Sequence
from math import isfinite

from lab.agent.evaluation import BASELINE, Trial
from lab.reporting.story import CONFIDENCE, Play, Story, expected_of
from lab.reporting.svg import (
    Frame,
    Scale,
    area,
    axes,
    box,
    chart,
    hint,
    label,
    line,
    mark,
    path,
    sampled,
    scale,
)
from lab.stats.format import count, estimate_text, number
from lab.stats.intervals import Estimate, t_interval
from lab.verdict.verdict import estimate

WIDTH, HEIGHT = 760, 340
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 36, 48
MOST_ROWS = 30
"""Maximum candidates in a chart; the table has all."""

ROW = 20


def frame(xs: Sequence[float], ys: Sequence[float], size: tuple[int, int], *, zero: bool = False) -> Frame:
    """Axes with room for all points."""
    width, height = size
    across = scale(xs, LEFT, width - RIGHT, zero=zero)
    return Frame(width, height, across, scale(ys, height - BOTTOM, TOP))


def race(story: Story) -> str:
    """Every whole episode's value over time, and the leader's mean."""
    ended = [play for play in story.plays if play.earned is not None]
    values = [play.earned for play in ended if play.earned is not None]
    until = max((play.ended for play in ended), default=1.0)
    size = (WIDTH, HEIGHT)
    axis = frame(
        [*(play.ended for play in ended), 0.0], [*values, *(r.mean for r in story.reigns)], size, zero=True
    )
    parts = [axes(axis, "minutes of work", f"{story.measure} of an episode")]
    for play in sampled(ended):
        earned = play.earned or 0.0
        says = hint(f"{play.name or 'unnamed'}, {play.phase}, seed {play.seed}", (story.measure, earned))
        parts.append(
            mark(axis.x(play.ended), axis.y(earned), _shape(play), _colour(play.name, story), says, 3.2)
        )
    searched = [play.ended for play in ended if play.phase == "search"]
    corners: list[tuple[float, float]] = []
    for reign in story.reigns:
        if corners:
            corners.append((axis.x(reign.minute), corners[-1][1]))
        corners.append((axis.x(reign.minute), axis.y(reign.mean)))
    if corners:
        corners.append((axis.x(max(searched, default=until)), corners[-1][1]))
        parts.append(path(corners, "incumbent"))
    says = f"{count(len(ended), 'whole episode')} in {number(until)} minutes."
    if story.reigns:
        last = story.reigns[-1]
        says += f" {last.name} was the last leader, with a mean of {number(last.mean)} over {last.episodes}."
    return chart("race-chart", size, "The race over time", says, parts)


def lanes(story: Story) -> str:
    """The episodes over time: a row per candidate, a bar per episode."""
    shown = _rows(story)
    plays = [play for play in story.plays if play.name in {trial.name for trial in shown}]
    height = TOP + ROW * len(shown) + BOTTOM
    x = scale([0.0, *(play.ended for play in plays)], 110, WIDTH - RIGHT, zero=True)
    axis = Frame(WIDTH, height, x, scale([0.0, 1.0], height - BOTTOM, height - BOTTOM))
    rows = {trial.name: TOP + ROW * place for place, trial in enumerate(shown)}
    parts = [x_axis(axis, "minutes of work")]
    for name, y in rows.items():
        parts.append(label(104, y + 14, name, anchor="end", style="tick"))
        parts.append(line(x.start, y + ROW - 1, x.end, y + ROW - 1, "grid"))
    for play in plays:
        left, right = x(play.began), x(play.ended)
        earned = "cut or failed" if play.earned is None else f"{story.measure} {number(play.earned)}"
        wide = max(right - left, 1.5)
        says = f"{play.name}, {play.phase}, seed {play.seed}, {earned}"
        style = f"lane {play.phase}{' broken' if play.earned is None else ''}"
        parts.append(box(min(left, x.end - wide), rows[play.name] + 4, wide, ROW - 8, style, says))
    says = f"{count(len(plays), 'episode')} of {count(len(shown), 'candidate')}, best first."
    return chart("lanes-chart", (WIDTH, height), "Episodes over time", says, parts)


def candidates(story: Story) -> str:
    """Expected value and interval of each candidate, best first, with its own mean and the holdout's."""
    shown = _rows(story)
    estimates = {trial.name: expected_of(trial) for trial in shown}
    unseen = holdout(story)
    known = [*ends_of([*estimates.values(), *unseen.values()]), *(trial.evaluation.mean for trial in shown)]
    height = TOP + ROW * len(shown) + BOTTOM
    x = scale(known, 110, WIDTH - 64)
    axis = Frame(WIDTH, height, x, scale([0.0, 1.0], height - BOTTOM, height - BOTTOM))
    parts = [x_axis(axis, f"expected mean {story.measure} of an episode")]
    for place, trial in enumerate(shown):
        y = TOP + ROW * place + ROW / 2
        style = f"{_colour(trial.name, story)}{' dropped' if trial.dropped else ''}"
        parts.append(label(104, y + 4, trial.name, anchor="end", style="tick"))
        parts.append(whisker(estimates[trial.name], x, y, 0, style, f"{trial.name}, expected"))
        own = x(trial.evaluation.mean)
        parts.append(line(own, y - 6, own, y + 6, f"own {style}"))
        if trial.name in unseen:
            parts.append(whisker(unseen[trial.name], x, y + 5, 3, "unseen", f"{trial.name}, holdout"))
        parts.append(label(WIDTH - 58, y + 4, f"n = {len(trial.evaluation.episodes)}", style="tick"))
    says = "; ".join(f"{name} {number(one.mean)}" for name, one in list(estimates.items())[:5])
    return chart(
        "candidates-chart",
        (WIDTH, height),
        f"{story.measure.capitalize()} per candidate",
        f"Best first: {says}.",
        parts,
    )


def holdout(story: Story) -> dict[str, Estimate]:
    """The holdout's means by candidate, each with a separate interval."""
    if story.outcome is None:
        return {}
    verdict = story.outcome.verdict
    return {name: estimate(unseen, verdict.confidence) for name, unseen in verdict.holdout.items()}


def pareto(story: Story) -> str:
    """Expected value against mean tokens per episode, with the Pareto front."""
    trials = list(story.trials)
    xs, ys = [one.evaluation.tokens for one in trials], [expected_of(one).mean for one in trials]
    size = (WIDTH, HEIGHT)
    axis = frame(xs, ys, size)
    front = pareto_front(list(zip(xs, ys, strict=True)))
    parts = [axes(axis, "mean tokens per episode, prompt and completion", f"expected mean {story.measure}")]
    corners: list[tuple[float, float]] = []
    for place in front:
        here = (axis.x(xs[place]), axis.y(ys[place]))
        corners += [(here[0], corners[-1][1]), here] if corners else [here]
    parts.append(path(corners, "front"))
    special = ("baseline", story.chosen[0] if story.chosen else "")
    drawn = {*sampled(range(len(trials))), *front, *_told(front, story)}
    for place in sorted(drawn, key=lambda place: (trials[place].name in special, place)):  # on top
        trial, told = trials[place], trials[place].name in special
        name = f"{trial.name} (n = {len(trial.evaluation.episodes)})"
        says = hint(name, (f"expected {story.measure}", ys[place]), ("tokens", xs[place]))
        style = f"{_colour(trial.name, story)}{'' if told or place in front else ' faint'}"
        shape = 1 if trial.number == BASELINE else 0
        parts.append(mark(axis.x(xs[place]), axis.y(ys[place]), shape, style, says, 6.0 if told else 4.5))
    names = [trials[place].name for place in front]
    parts += _names(axis, [(xs[place], ys[place], trials[place].name) for place in _told(front, story)])
    says = f"On the front, from cheap to expensive: {', '.join(names)}."
    return chart("pareto-chart", size, f"{story.measure.capitalize()} against tokens", says, parts)


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
    size = (WIDTH, HEIGHT)
    known = [end for _, row in rows for one in row for end in (one.low, one.high, one.mean) if isfinite(end)]
    last = max(len(row) for _, row in rows)
    x = scale([1.0, float(last)], LEFT, WIDTH - RIGHT)
    axis = Frame(WIDTH, HEIGHT, x, scale(known, HEIGHT - BOTTOM, TOP, zero=True))
    parts = [axes(axis, "step", "mean reward", x_ticks=False)]
    parts += [
        label(x(step), HEIGHT - BOTTOM + 17, str(step), anchor="middle", style="tick")
        for step in range(1, last + 1)
    ]
    for place, (name, row) in enumerate(rows):
        style = _colour(name, story)
        upper = [(x(step), axis.y(one.high)) for step, one in enumerate(row, 1) if isfinite(one.high)]
        lower = [(x(step), axis.y(one.low)) for step, one in enumerate(row, 1) if isfinite(one.low)]
        if upper:
            parts.append(area([*upper, *reversed(lower)], style))
        parts.append(path([(x(step), axis.y(one.mean)) for step, one in enumerate(row, 1)], style))
        for step, one in enumerate(row, 1):
            says = f"{name}, step {step}: {estimate_text(one)}, n = {one.n}"
            parts.append(mark(x(step), axis.y(one.mean), place, style, says))
    told = "; ".join(f"{name}: {', '.join(number(one.mean) for one in row)}" for name, row in rows)
    return chart(
        "steps-chart", size, "Reward by step", f"Mean rewards from the first step on. {told}.", parts
    )


def step_rows(story: Story) -> list[tuple[str, list[Estimate]]]:
    """Mean rewards by step of the baseline and the chosen candidate, over episodes that reached the step."""
    rows = []
    for name, evaluation in sorted(story.shown.items(), key=lambda one: one[0] != "baseline"):
        played = [episode.rewards for episode in evaluation.episodes]
        longest = max(map(len, played), default=0)
        rewards = [[one[place] for one in played if len(one) > place] for place in range(longest)]
        rows.append((name, [t_interval(values, CONFIDENCE) for values in rewards]))
    return [(name, row) for name, row in rows if row]


def _rows(story: Story) -> list[Trial]:
    """The best trials, and always the baseline."""
    best = list(story.trials[:MOST_ROWS])
    return best + [trial for trial in story.trials[MOST_ROWS:] if trial.number == BASELINE]


def _colour(name: str, story: Story) -> str:
    chosen = story.chosen[0] if story.chosen else ""
    return "base" if name == "baseline" else "chosen" if name == chosen else "other"


def _shape(play: Play) -> int:
    return {"search": 0, "confirmation": 2, "holdout": 3}[play.phase]


def whisker(one: Estimate, x: Scale, y: float, shape: int, style: str, name: str) -> str:
    """A mean with its interval; hollow without one."""
    says = f"{name}: {estimate_text(one) if one.bounded else number(one.mean)}, n = {one.n}"
    bar = line(x(one.low), y, x(one.high), y, f"whisker {style}") if one.bounded else ""
    return bar + mark(x(one.mean), y, shape, f"{style}{'' if one.bounded else ' single'}", says)


def x_axis(axis: Frame, name: str) -> str:
    """The horizontal axis of a chart with one row for each item."""
    y = axis.height - BOTTOM
    parts = [line(axis.x.start, y, axis.x.end, y, "axis")]
    for value in axis.x.ticks:
        parts.append(line(axis.x(value), TOP, axis.x(value), y + 4, "grid"))
        parts.append(label(axis.x(value), y + 17, f"{value:,.6g}", anchor="middle", style="tick"))
    parts.append(label((axis.x.start + axis.x.end) / 2, y + 34, name, anchor="middle", style="name"))
    return "\n".join(parts)


def ends_of(estimates: Sequence[Estimate]) -> list[float]:
    """The range of an axis: all means, and intervals up to the same range again on each side.

    An interval of two episodes can be so wide that nothing else could be distinguished.
    """
    means = [one.mean for one in estimates] or [0.0]
    low, high = min(means), max(means)
    room = max([high - low, *(one.high - one.mean for one in estimates if one.n > 2)])
    ends = [end for one in estimates for end in (one.low, one.high)]
    return [*means, *(min(max(end, low - room), high + room) for end in ends if isfinite(end))]


def _told(front: Sequence[int], story: Story) -> list[int]:
    """The labelled points: the ends of the front, the chosen candidate, and the baseline."""
    names = [trial.name for trial in story.trials]
    more = [
        names.index(name) for name in ("baseline", story.chosen[0] if story.chosen else "") if name in names
    ]
    return list(dict.fromkeys([*more, *front[:1], *front[-1:]]))


def _names(axis: Frame, points: Sequence[tuple[float, float, str]]) -> list[str]:
    """The points' labels, on the side with room, and below a label that is in the way."""
    middle = (axis.x.start + axis.x.end) / 2
    parts, taken = [], list[tuple[float, float]]()
    for across, up, name in sorted(points, key=lambda point: -point[1]):
        x, y = axis.x(across), max(axis.y(up) - 6, 12.0)
        while any(abs(x - there) < 90 and abs(y - row) < 13 for there, row in taken):
            y += 13
        taken.append((x, y))
        anchor, beside = ("start", x + 8) if x < middle else ("end", x - 8)
        parts.append(label(beside, min(y, axis.height - 4), name, anchor=anchor, style="point"))
    return parts
