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

from markupsafe import Markup

from lab.agent.task import OTHER
from lab.display.diff import differing, settings_of, text_lines, whole_diff
from lab.errors import plain
from lab.reporting import charts, claims, costs, details, history, parameters
from lab.reporting.story import Story, expected_of, tell
from lab.reporting.svg import one_in
from lab.search.trouble_words import troubles_brief, troubles_text
from lab.stats import format as figures
from lab.study.past_study import PastStudy
from lab.verdict.verdict import estimate
from lab.verdict.words import other_mean

if TYPE_CHECKING:
    from jinja2 import Environment

LONGEST = 2_000
"""Maximum characters of a text in a candidate's episodes."""


def report(past: PastStudy) -> str:
    """The page about a study, finished or not."""
    return render(tell(past))


def render(story: Story) -> str:
    """The page for a story."""
    baseline, chosen = story.experiment.baseline, story.chosen
    own = chosen[1].candidate if chosen else baseline
    differs, script = differing(baseline, own), _part("page.js")
    return (
        _environment()
        .get_template("page.html")
        .render(
            story=story,
            style=_part("page.css"),
            script=script,
            script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            doubts=claims.reasons(story),
            measure=story.measure,
            other=OTHER[story.measure],
            baseline=baseline,
            modelled=any(expected_of(trial).bounded for trial in story.trials),
            chosen=chosen[0] if chosen else None,
            own=own,
            differing=differs,
            same={name: value for name, value in settings_of(own).items() if name not in differs},
        )
    )


@lru_cache(maxsize=1)
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    def visible(value: object) -> object:
        return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        loader=PackageLoader("lab.reporting", "."),
        autoescape=True,
        finalize=visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = environment.globals
    names.update(charts=charts, claims=claims, costs=costs, details=details, history=history)
    names.update(parameters=parameters, figures=figures, text_lines=text_lines, whole_diff=whole_diff)
    names.update(estimate=estimate, expected_of=expected_of, other_mean=other_mean, one_in=one_in)
    names.update(troubles_brief=troubles_brief, troubles_text=troubles_text, zip_longest=zip_longest)
    names.update(cut=_cut, longest=LONGEST)
    return environment


def _part(name: str) -> Markup:
    return Markup((files("lab.reporting") / name).read_text(encoding="utf-8"))


def _cut(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]} [... {len(text) - LONGEST:,} more characters]"
