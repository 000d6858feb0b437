"""The effect of each parameter: Optuna's importance, and results by value and template."""

from collections.abc import Sequence
from html import escape

from markupsafe import Markup

from lab.agent.evaluation import Trial
from lab.experiment.space import Range
from lab.reporting.story import Story, expected_of
from lab.reporting.svg import (
    COLOURS,
    SHAPES,
    Frame,
    axes,
    box,
    chart,
    harmless,
    hint,
    label,
    line,
    mark,
    sampled,
    scale,
)
from lab.stats.format import percent, setting_text

WIDTH, HEIGHT, IMPORTANCE = 360, 240, 480
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 34, 46
ROW = 24


def importance(story: Story) -> str:
    """A bar chart of the importance of free settings."""
    shares = story.importance
    height = ROW * len(shares) + 8
    full = IMPORTANCE - 132 - 64
    parts = []
    for place, (name, share) in enumerate(shares.items()):
        y = 4 + ROW * place
        parts.append(label(126, y + 15, name, anchor="end", style="tick"))
        parts.append(box(132, y + 3, share * full, ROW - 6, "bar", f"{name}: {percent(share)}"))
        parts.append(label(138 + share * full, y + 15, percent(share), style="tick"))
    says = ", ".join(f"{name} {percent(share)}" for name, share in shares.items())
    return chart("importance-chart", (IMPORTANCE, height), "Importance of each parameter", f"{says}.", parts)


def slices(story: Story) -> list[str]:
    """A chart for each parameter with more than one value, the most important first."""
    tried = sampled(story.trials)
    settings = [trial.candidate.settings for trial in tried]
    names = [
        name
        for name in dict.fromkeys(name for one in settings for name in one)
        if len({one[name] for one in settings}) > 1
    ]
    order = list(story.importance)
    names.sort(key=lambda name: order.index(name) if name in order else len(order))
    return [_slice(name, tried, story) for name in names]


def key(templates: Sequence[str]) -> Markup:
    """The legend of marks by template."""
    entries = []
    for place, name in enumerate(templates):
        drawn = mark(8, 8, place % SHAPES, f"c{place % COLOURS}", size=5)
        picture = f'<svg viewBox="0 0 16 16" class="key" aria-hidden="true">{drawn}</svg>'
        entries.append(f"<li>{picture} {harmless(name, 40)}</li>")
    return Markup(f'<ul class="legend">{"".join(entries)}</ul>')


def _slice(name: str, tried: Sequence[Trial], story: Story) -> str:
    numeric = isinstance(story.experiment.space.free.get(name), Range)
    return _scatter(name, tried, story) if numeric else _strips(name, tried, story)


def _scatter(name: str, tried: Sequence[Trial], story: Story) -> str:
    values = [float(trial.candidate.settings[name]) for trial in tried]
    means = [expected_of(trial).mean for trial in tried]
    across, up = scale(values, LEFT, WIDTH - RIGHT), scale(means, HEIGHT - BOTTOM, TOP)
    parts = [axes(Frame(WIDTH, HEIGHT, across, up), name, f"expected {story.measure}")]
    for trial, value in zip(tried, values, strict=True):
        parts.append(_point(trial, name, across(value), up(expected_of(trial).mean), story))
    says = f"Expected {story.measure} against {name}, a mark for each of {len(tried)} candidates."
    return chart(f"slice-{escape(name)}", (WIDTH, HEIGHT), name, says, parts)


def _strips(name: str, tried: Sequence[Trial], story: Story) -> str:
    """A row per value, because names are longer than a column is wide."""
    found = dict.fromkeys(trial.candidate.settings[name] for trial in tried)
    rows = {value: place for place, value in enumerate(found)}
    height = TOP + ROW * len(rows) + BOTTOM
    across = scale([expected_of(trial).mean for trial in tried], 110, WIDTH - RIGHT)
    bottom = height - BOTTOM
    parts = [label(104, TOP - 12, name, anchor="end", style="name")]
    for tick in across.ticks:
        parts.append(line(across(tick), TOP, across(tick), bottom + 4, "grid"))
        parts.append(label(across(tick), bottom + 17, f"{tick:,.6g}", anchor="middle", style="tick"))
    parts.append(
        label((110 + WIDTH) / 2, bottom + 34, f"expected {story.measure}", anchor="middle", style="name")
    )
    for value, place in rows.items():
        parts.append(
            label(104, TOP + ROW * place + 16, setting_text(value), anchor="end", style="tick", most=16)
        )
    for trial in tried:
        apart = (trial.number % 5 - 2) * 2.5  # or equal returns would hide each other
        y = TOP + ROW * rows[trial.candidate.settings[name]] + ROW / 2 + apart
        parts.append(_point(trial, name, across(expected_of(trial).mean), y, story))
    says = f"Expected {story.measure} for each {name}, a mark for each of {len(tried)} candidates."
    return chart(f"slice-{escape(name)}", (WIDTH, height), name, says, parts)


def _point(trial: Trial, name: str, x: float, y: float, story: Story) -> str:
    template = trial.candidate.template.name
    place = story.templates.index(template)
    says = hint(
        f"{trial.name}, {template}, {name} {trial.candidate.settings[name]}",
        (f"expected {story.measure}", expected_of(trial).mean),
        ("episodes", len(trial.evaluation.episodes)),
    )
    return mark(x, y, place % SHAPES, f"c{place % COLOURS}", says, 4.0)
