"""The page: a Story as one HTML file without external resources.

Every text in it is escaped, with control characters made visible, whatever its source; charts escape their
own text. The page is whole without scripts; its content security policy allows only the lab's, by its digest.
"""

import base64
import hashlib
from functools import lru_cache
from importlib.resources import files
from itertools import zip_longest
from typing import TYPE_CHECKING

from lab.agent.task import OTHER
from lab.display.diff import text_lines
from lab.errors import plain
from lab.reporting import charts, claims, details, evidence, history, parameters, summary
from lab.reporting.story import Story, expected_of, tell
from lab.reporting.svg import one_in
from lab.search import trouble_words
from lab.stats import format as words
from lab.study.past_study import PastStudy

if TYPE_CHECKING:
    from jinja2 import Environment

LONGEST = 2_000
"""Maximum characters of a text in a candidate's episodes."""


def report(past: PastStudy) -> str:
    """The page about a study, finished or not."""
    return render(tell(past))


def render(story: Story) -> str:
    """The page for a story."""
    from markupsafe import Markup

    def drawn(svg: str) -> Markup:
        return Markup(svg)  # trusted: its text is escaped when drawn

    template = _environment().get_template("page.html")
    chosen, script = story.chosen, _part("page.js")
    base = story.experiment.baseline
    return template.render(
        story=story,
        style=drawn(_part("page.css")),
        script=drawn(script),
        script_digest=_digest(script),
        summary=summary.summary(story),
        prompt=[(part, "\n".join(lines)) for part, lines in text_lines(chosen[1].candidate).items() if lines]
        if chosen
        else [],
        measure=story.measure,
        other=OTHER[story.measure],
        chosen=chosen[0] if chosen else None,
        verdict=claims.verdict(story),
        counts=evidence.counts(story),
        doubts=claims.reasons(story),
        settings=evidence.settings(story),
        holdout=evidence.holdout_rows(story),
        candidates=evidence.candidate_rows(story),
        cells=evidence.setting_cells(story),
        free=list(story.experiment.space.free),
        details=details.details(story),
        modelled=any(expected_of(trial).bounded for trial in story.trials),
        one_in=one_in,
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
        studies=history.rows(story),
        gains=drawn(history.gains(story)),
        troubles=trouble_words.troubles_text(story.troubles),
        cut=_cut,
        longest=LONGEST,
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


def _part(name: str) -> str:
    return (files("lab.reporting") / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    """The source of a script in a content security policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def _cut(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]} [... {len(text) - LONGEST:,} more characters]"
