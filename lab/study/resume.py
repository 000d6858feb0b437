"""Resume: whether a study begins, resumes, is finished already, or must not resume.

It owns that choice, and that one process at a time works on an experiment whose record is a file. What a
study depends on is `lab.study.document`'s.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.errors import ConfigError, LabError, plain
from lab.experiment.experiment import Experiment
from lab.storage.database import Store
from lab.storage.journal import Searched
from lab.storage.record import CONFIRMATION, HOLDOUT, Record
from lab.study.document import (
    Reached,
    StudyDocument,
    difference,
    may_become,
    read_document,
    unreadable,
)

MOST_LINES = 40
"""Of a difference that is shown."""


class StudyChangedError(ConfigError):
    """What an unfinished study depends on is no longer what it was; `difference` shows it, line by line."""

    def __init__(self, study: str, difference: list[str]) -> None:
        super().__init__(
            "The experiment has changed since its study began, and the study is not finished.",
            where=study,
            why="its episodes depend on what has changed, or a part of it that has begun does",
            do="change it back; or use --fresh, which begins a new study and keeps the old one's record",
        )
        self.difference = difference

    def __str__(self) -> str:
        shown = [f"  {plain(line)}" for line in self.difference]
        return "\n".join([super().__str__(), *shown[:MOST_LINES]])


def open_record(store: Store, experiment: Experiment, now: StudyDocument, *, fresh: bool) -> Record:
    """The record to work on: the last study's, where that resumes or is finished, or a new one's.

    A study that is not finished takes over what may change, such as a raised limit.

    Raises:
        StudyChangedError: the last study is not finished, and depends on something else.
        ConfigError: it is not finished, and what it depends on cannot be read.
    """
    with store.exclusively():
        latest = None if fresh else store.latest(experiment.name)
        if latest is not None:
            last = Record(store, *latest)
            before, over = read_document(last.document), bool(last.judged or last.stopped)
            if before is None and not over:
                raise unreadable(last.name)
            if before is not None and (before == now or not over):
                if not may_become(before, now, _reached(last, experiment)):
                    raise StudyChangedError(last.name, difference(before, now))
                if last.document != now.as_json():
                    last.change(now.as_json())
                return last
        name = store.begin(experiment.name, now.as_json())
        return Record(store, name, now.as_json())


def _reached(record: Record, experiment: Experiment) -> Reached:
    played = [seed - experiment.seed for _, seed in record.ended]
    return Reached(
        searched=Searched() in record.events,
        confirming=any(seed >= CONFIRMATION for seed in played),
        holdout=any(seed >= HOLDOUT for seed in played),
    )


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
