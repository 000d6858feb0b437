"""What is said around a study: before it begins, and where it ends without freezing anything.

Its result is `lab.verdict.outcome`'s to word, and its progress `lab.display.progress`'s.
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
    """What the study of the experiment at `path` would do.

    Args:
        endpoint: the URL of the flag `--endpoint`.
    """
    read_surroundings(Path.cwd(), endpoint)
    experiment = load_experiment(path)
    model = choose_model(experiment.model)
    environment = choose_environment(experiment.environment)
    opening = await opening_of(experiment, environment)
    return str(Plan(experiment, model, environment, shown_proposer(), opening))


def heading(past: PastStudy) -> Iterator[str]:
    """What a finished study is."""
    yield _title(past.experiment, past.model, past.record)
    if past.outcome is not None:
        created = past.outcome.judged.created
        yield f"It finished at {created}; this is its result again. --fresh starts a new study."


def _title(experiment: Experiment, model: ModelChoice, record: Record) -> str:
    return f"Study {record.name} on {model.name} at {model.shown}: {experiment.about}"


def first_lines(study: Study, record: Record, before: str | None) -> Iterator[str]:
    """What the study is, whether it is new, and what may still be spent on it.

    Args:
        before: the experiment's last study.
    """
    experiment, model, spending = study.experiment, study.model, study.spending
    yield _title(experiment, model, record)
    if before == record.name:
        yield f"Resuming: {count(len(record.ended), 'episode')} already recorded."
        yield f"Left of the budget: {spending.left}."
    elif before is not None:
        yield f"The experiment has changed since {before}, which has finished; starting a new study."
    if limit := spending.used_up():
        yield f"No call is left ({limit}): what is recorded is judged. To continue, raise the limit."
        return
    yield Plan(experiment, model, choose_environment(experiment.environment), shown_proposer()).short
    if model.dialect != OPENAI:
        yield f"Requests are: {model.dialect}."


@contextmanager
def untouched(out: Path) -> Iterator[None]:
    """Where the study does not end, say what the file that it would have frozen to still holds."""
    try:
        yield
    except BaseException:
        if note := from_before(out):
            typer.echo(note, err=True)
        raise


def from_before(out: Path) -> str:
    """What is at `out` since before this run; empty for nothing."""
    if not out.exists():
        return ""
    try:
        then = read_frozen(out).provenance
    except ConfigError:
        return f"{out} is unchanged, and holds no frozen prompt that can be played."
    return f"{out} is unchanged: study {then.study} froze it at {then.created}."
