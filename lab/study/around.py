"""The texts around a study: before it starts, and if it ends without freezing anything.

The result's text is `lab.verdict`'s; progress is `lab.display.progress`'s.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from lab.environments.config import choose_environment
from lab.errors import ConfigError
from lab.experiment.experiment import Experiment, load_experiment
from lab.llm.dialect import OPENAI
from lab.llm.settings import ModelChoice, choose_model, read_surroundings, shown_proposer
from lab.stats.format import count
from lab.storage.record import Record
from lab.study.past_study import PastStudy
from lab.study.plan import Plan, opening_of
from lab.study.study import Study
from lab.submission.frozen import read_frozen


async def planned(path: Path, endpoint: str) -> str:
    """The plan of a study of the experiment at `path`."""
    read_surroundings(Path.cwd(), endpoint)
    experiment = load_experiment(path)
    model = choose_model(experiment.model)
    environment = choose_environment(experiment.environment)
    opening = await opening_of(experiment, environment)
    return str(Plan(experiment, model, environment, shown_proposer(), opening))


def heading(past: PastStudy) -> Iterator[str]:
    """The first lines about a finished study."""
    yield _title(past.experiment, past.model, past.record)
    if past.outcome is not None:
        created = past.outcome.judged.created
        yield f"It finished at {created}; this is its result again. --fresh starts a new study."


def _title(experiment: Experiment, model: ModelChoice, record: Record) -> str:
    return f"Study {record.name} on {experiment.models_text(model)}: {experiment.about}"


def first_lines(study: Study, record: Record, before: str | None, obstacle: str) -> Iterator[str]:
    """The first lines about a study: title, budget, and how it follows on the last study, `before`.

    Args:
        obstacle: Why that one does not continue.
    """
    experiment, model, spending = study.experiment, study.model, study.spending
    yield _title(experiment, model, record)
    if before == record.name:
        yield f"Resuming: {count(len(record.ended), 'episode')} already recorded."
        yield f"Left of the budget: {spending.left}."
        if experiment.verdicts:
            verdicts = count(experiment.verdicts, "verdict")
            yield f"It already has {verdicts}; the next one uses new unseen episodes."
    elif before is not None:
        yield f"The experiment has changed since {before}, which has finished; starting a new study."
        yield f"That one does not continue: {obstacle}."
    if limit := spending.used_up():
        yield f"No calls left ({limit}): judging the recorded episodes. To continue, raise the limit."
        return
    yield Plan(experiment, model, choose_environment(experiment.environment), shown_proposer()).short
    if model.dialect != OPENAI:
        yield f"Requests are: {model.dialect}."


@contextmanager
def untouched(out: Path) -> Iterator[None]:
    """If the block raises, say that the frozen file is unchanged."""
    try:
        yield
    except BaseException:
        if note := from_before(out):
            typer.echo(note, err=True)
        raise


def from_before(out: Path) -> str:
    """A sentence about the file at `out` from before this run; empty without a file."""
    if not out.exists():
        return ""
    try:
        then = read_frozen(out).provenance
    except ConfigError:
        return f"{out} is unchanged, and contains no valid frozen prompt."
    return f"{out} is unchanged: study {then.study} froze it at {then.created}."
