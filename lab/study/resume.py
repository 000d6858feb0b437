"""Resume: whether a study begins, resumes, is finished already, or must not resume.

It owns that choice, and that one process at a time works on an experiment whose record is a file. What a
study depends on is `lab.study.document`'s.
"""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.errors import ConfigError, LabError, plain
from lab.experiment.experiment import Experiment
from lab.search.samplers import make_pruner, make_sampler
from lab.search.trials import distributions_of
from lab.storage.database import Store
from lab.storage.optuna_storage import BEAT_S, GRACE_S
from lab.storage.record import CONFIRMATION, HOLDOUT, Record
from lab.storage.storage import Storage
from lab.storage.trials import StudyTrials
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


def open_study(
    storage: Storage, experiment: Experiment, now: StudyDocument, *, fresh: bool
) -> tuple[Record, StudyTrials]:
    """Return what to work on: the last study, where that resumes or is finished, or a new one.

    A study that is not finished takes over what may change, such as a raised limit.

    Raises:
        StudyChangedError: the last study is not finished, and depends on something else.
        ConfigError: It is unfinished and its document is unreadable, or its sampler is not available.
    """
    store = storage.store
    with store.exclusively():
        latest = None if fresh else store.latest(experiment.name)
        if latest is not None:
            record = Record(store, *latest)
            trials = open_trials(storage, record.name, experiment)
            if _goes_on(record, trials, experiment, now):
                return record, trials.widened(distributions_of(experiment))
        made = (make_sampler(experiment), make_pruner(experiment))  # before anything is written
        name = store.begin(experiment.name, now.as_json())
        return Record(store, name, now.as_json()), StudyTrials.opened(storage.optuna, name, *made)


def open_trials(storage: Storage, study: str, experiment: Experiment) -> StudyTrials:
    """Return a study's trials, with the experiment's sampler and pruner."""
    made = (make_sampler(experiment), make_pruner(experiment))
    return StudyTrials.opened(storage.optuna, study, *made)


def _goes_on(record: Record, trials: StudyTrials, experiment: Experiment, now: StudyDocument) -> bool:
    """Whether the last study is the one to work on; it takes over what may change."""
    over = any(trials.search.fact(key) is not None for key in ("judged", "stopped"))
    before = read_document(record.document)
    if before is None and not over:
        raise unreadable(record.name)
    if before is None or (before != now and over):
        return False
    if not may_become(before, now, _reached(record, trials, experiment)):
        raise StudyChangedError(record.name, difference(before, now))
    if record.document != now.as_json():
        record.change(now.as_json())
    return True


def _reached(record: Record, trials: StudyTrials, experiment: Experiment) -> Reached:
    played = [seed - experiment.seed for _, seed in record.ended]
    return Reached(
        searched=trials.search.fact("searched") is not None,
        confirming=any(seed >= CONFIRMATION for seed in played),
        holdout=any(seed >= HOLDOUT for seed in played),
    )


@contextmanager
def alone_on(store: Store, study: str) -> Iterator[None]:
    """Keep out of a study that other workers on a shared storage are at; one that just died is waited for.

    Raises:
        ConfigError: another process works on it.
    """
    until_s = time.monotonic() + GRACE_S
    while not store.lead(study):
        if time.monotonic() > until_s:
            what = "Another process is working on this experiment's study."
            raise ConfigError(what, where=study, do="--worker joins it; or stop it")
        time.sleep(BEAT_S)
    yield


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
