"""Resume: whether a study begins, goes on where it was, is finished already, or must not go on.

It owns what a study depends on (its document), and that one process at a time works on an experiment whose
record is a file.
"""

import difflib
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from lab.errors import ConfigError, LabError, plain
from lab.experiment import Experiment
from lab.prompt import PromptTemplate
from lab.record import NothingRecordedError, Record
from lab.settings import ModelChoice
from lab.store import Store

FORMAT = 2
"""Of the journal; a study that another format wrote cannot go on."""

MOST_LINES = 40
"""Of a difference that is shown."""


class StudyChangedError(ConfigError):
    """What an unfinished study depends on is no longer what it was; `difference` shows it, line by line."""

    def __init__(self, study: str, difference: list[str]) -> None:
        super().__init__(
            "The experiment has changed since its study began, and the study is not finished.",
            where=study,
            do="--fresh begins a new study, and keeps the old one's record; or change it back",
        )
        self.difference = difference

    def __str__(self) -> str:
        shown = [f"  {plain(line)}" for line in self.difference]
        return "\n".join([super().__str__(), *shown[:MOST_LINES]])


def document(experiment: Experiment, model: ModelChoice, proposer: str) -> str:
    """All that a study depends on, for people to read: the model, the experiment's text, its templates.

    Args:
        proposer: the model that proposes, if it is not the one that plays; else empty.
    """
    templates = {
        experiment.baseline.template.name: experiment.baseline.template,
        **experiment.space.templates,
    }
    parts = [
        f"format {FORMAT}",
        f"model {model.name} at {model.shown}",
        *([f"proposer {proposer}"] if proposer else []),
        *(["maximise score"] if experiment.objective.maximise == "score" else []),
        experiment.text,
        *(f"{file}\n{code}" for file, code in experiment.code.items()),
        *(_template_text(templates[name]) for name in sorted(templates)),
    ]
    return "\n".join(parts) + "\n"


def open_record(store: Store, experiment: str, depends_on: str, *, fresh: bool, replay: bool) -> Record:
    """The record to work on: the last study's, where that goes on or is finished, or a new one's.

    Raises:
        StudyChangedError: the last study is not finished, and depends on something else.
        NothingRecordedError: a replay was asked for, and there is no such study.
    """
    with store.exclusively():
        latest = None if fresh else store.latest(experiment)
        last = Record(store, *latest) if latest else None
        if last is not None and last.document == depends_on:
            return last
        if last is not None and (replay or last.judged is None):
            raise StudyChangedError(last.name, _difference(last.document, depends_on))
        if replay:
            do = "play it first: the same command without --replay"
            raise NothingRecordedError("No study of this experiment was recorded.", where=store.where, do=do)
        name = f"{experiment}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
        store.begin(name, experiment, depends_on)
        return Record(store, name, depends_on)


@contextmanager
def alone(experiment: str, folder: Path) -> Iterator[None]:
    """Keep other processes from working on the experiment's studies; the system undoes it however we end.

    Raises:
        ConfigError: another process works on them.
        LabError: nothing can be written there.
    """
    path = folder / f"{experiment}.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    except OSError as error:
        raise LabError("The study's record cannot be written.", where=str(path), why=str(error)) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            do = "wait for it, or stop it"
            what = "Another process is working on this experiment's study."
            raise ConfigError(what, where=str(path), do=do) from None
        yield


def _template_text(template: PromptTemplate) -> str:
    return f"template {template.name}\nsystem:\n{template.system}\nturn:\n{template.turn}"


def _difference(before: str, now: str) -> list[str]:
    lines = difflib.unified_diff(
        before.splitlines(), now.splitlines(), "when it began", "now", lineterm="", n=1
    )
    return list(lines)
