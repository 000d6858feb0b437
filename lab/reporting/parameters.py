"""The effect of each parameter: Optuna's importance, and results by value and template."""

from collections.abc import Sequence
from html import escape

from markupsafe import Markup

from lab.agent.evaluation import Trial
from lab.experiment.space import Range
from lab.reporting import svg
from lab.reporting.charts import NAMES, RIGHT, TOP, frame, rows_of
from lab.reporting.story import Story, expected_of
from lab.stats.format import percent, setting_text

WIDTH, HEIGHT, ROW = 360, 240, 24


def importance(story: Story) -> str:
    """A bar chart of the importance of free settings."""
    shares, width, full = story.importance, 480, 284
    parts = []
    for place, (name, share) in enumerate(shares.items()):
        y = 4 + ROW * place
        parts.append(svg.label(126, y + 15, name, anchor="end", style="tick"))
        parts.append(svg.box(132, y + 3, share * full, ROW - 6, "bar", f"{name}: {percent(share)}"))
        parts.append(svg.label(138 + share * full, y + 15, percent(share), style="tick"))
    says = ", ".join(f"{name} {percent(share)}" for name, share in shares.items())
    size = (width, ROW * len(shares) + 8)
    return svg.chart("importance-chart", size, "Importance of each parameter", f"{says}.", parts)


def slices(story: Story) -> list[str]:
    """A chart for each parameter with more than one value, the most important first."""
    tried = svg.sampled(story.trials)
    settings = [trial.candidate.settings for trial in tried]
    names = [
        name
        for name in dict.fromkeys(name for one in settings for name in one)
        if len({one[name] for one in settings}) > 1
    ]
    order = list(story.importance)
    names.sort(key=lambda name: order.index(name) if name in order else len(order))
    free = story.experiment.space.free
    return [
        (_scatter if isinstance(free.get(name), Range) else _strips)(name, tried, story) for name in names
    ]


def key(templates: Sequence[str]) -> Markup:
    """The legend of marks by template."""
    entries = []
    for place, name in enumerate(templates):
        drawn = svg.mark(8, 8, place % svg.SHAPES, f"c{place % svg.COLOURS}", size=5)
        picture = f'<svg viewBox="0 0 16 16" class="key" aria-hidden="true">{drawn}</svg>'
        entries.append(f"<li>{picture} {svg.harmless(name, 40)}</li>")
    return Markup(f'<ul class="legend">{"".join(entries)}</ul>')


def _scatter(name: str, tried: Sequence[Trial], story: Story) -> str:
    values = [float(trial.candidate.settings[name]) for trial in tried]
    axis = frame(values, [expected_of(trial).mean for trial in tried], WIDTH, HEIGHT)
    parts = [svg.axes(axis, name, f"expected {story.measure}")]
    for trial, value in zip(tried, values, strict=True):
        parts.append(_point(trial, name, axis.x(value), axis.y(expected_of(trial).mean), story))
    says = f"Expected {story.measure} against {name}, a mark for each of {len(tried)} candidates."
    return svg.chart(f"slice-{escape(name)}", (WIDTH, HEIGHT), name, says, parts)


def _strips(name: str, tried: Sequence[Trial], story: Story) -> str:
    """A row per value, because names are longer than a column is wide."""
    values = list(dict.fromkeys(trial.candidate.settings[name] for trial in tried))
    x = svg.scale([expected_of(trial).mean for trial in tried], NAMES, WIDTH - RIGHT)
    axis = f"expected {story.measure}"
    rows = rows_of([setting_text(value) for value in values], x, axis, WIDTH, most=16)
    rows.parts.append(svg.label(x.start - 6, TOP - 12, name, anchor="end", style="name"))
    for trial in tried:
        apart = (trial.number % 5 - 2) * 2.5  # or equal returns would hide each other
        y = rows.middle(values.index(trial.candidate.settings[name])) + apart
        rows.parts.append(_point(trial, name, x(expected_of(trial).mean), y, story))
    says = f"Expected {story.measure} for each {name}, a mark for each of {len(tried)} candidates."
    return svg.chart(f"slice-{escape(name)}", rows.size, name, says, rows.parts)


def _point(trial: Trial, name: str, x: float, y: float, story: Story) -> str:
    template = trial.candidate.template.name
    place = story.templates.index(template)
    says = svg.hint(
        f"{trial.name}, {template}, {name} {trial.candidate.settings[name]}",
        (f"expected {story.measure}", expected_of(trial).mean),
        ("episodes", len(trial.evaluation.episodes)),
    )
    return svg.mark(x, y, place % svg.SHAPES, f"c{place % svg.COLOURS}", says, 4.0)
