"""The page: a Story as one HTML file without scripts or external resources.

Every text in it is escaped, with control characters made visible, whatever its source; charts escape their
own text.
"""

from functools import lru_cache
from importlib.resources import files
from itertools import zip_longest
from typing import TYPE_CHECKING

from lab.agent.task import OTHER
from lab.errors import plain
from lab.reporting import charts, claims, evidence, parameters
from lab.reporting.story import Story, tell
from lab.search import trouble_words
from lab.stats import format as words
from lab.study.past_study import PastStudy

if TYPE_CHECKING:
    from jinja2 import Environment

LONG = 400
"""Length in characters from which a text is folded."""


def report(past: PastStudy) -> str:
    """The page about a study, finished or not."""
    return render(tell(past))


def render(story: Story) -> str:
    """The page for a story."""
    from markupsafe import Markup

    def drawn(svg: str) -> Markup:
        return Markup(svg)  # trusted: its text is escaped when drawn

    template = _environment().get_template("page.html")
    chosen = story.chosen
    base = story.experiment.baseline
    return template.render(
        story=story,
        style=drawn(_style()),
        measure=story.measure,
        other=OTHER[story.measure],
        chosen=chosen[0] if chosen else None,
        verdict=claims.verdict(story),
        counts=evidence.counts(story),
        doubts=claims.reasons(story),
        settings=evidence.settings(story),
        holdout=evidence.holdout_rows(story),
        candidates=evidence.candidate_rows(story),
        race=drawn(charts.race(story)),
        lanes=drawn(charts.lanes(story)),
        forest=drawn(charts.candidates(story)),
        importance=drawn(parameters.importance(story)) if story.importance else None,
        slices=[drawn(svg) for svg in parameters.slices(story)],
        key=drawn(parameters.key(story.templates)),
        pareto=drawn(charts.pareto(story)),
        steps=drawn(charts.steps(story)),
        episodes=evidence.extremes(story),
        difference=evidence.difference(base, chosen[1].candidate) if chosen else [],
        cost=evidence.cost_rows(story),
        models=evidence.model_rows(story),
        troubles=trouble_words.troubles_text(story.troubles),
        long=LONG,
        number=words.number,
        zip_longest=zip_longest,
    )


@lru_cache(maxsize=1)
def _environment() -> "Environment":
    # Here and not above, so that --help answers at once.
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def visible(value: object) -> object:
        return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    return Environment(
        loader=PackageLoader("lab.reporting", "."),
        autoescape=True,
        finalize=visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _style() -> str:
    return (files("lab.reporting") / "page.css").read_text(encoding="utf-8")
