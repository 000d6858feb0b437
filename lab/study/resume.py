"""Resume: whether a command starts, resumes or repeats a study, or must refuse.

It owns that choice, and that only one process works on an experiment whose record is a file: by `fcntl`,
because `lab.studies` looks without taking the lock, which `filelock` cannot. Comparing a study's inputs is
`lab.study.document`'s.
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
"""Maximum lines of a difference that are shown."""


class StudyChangedError(ConfigError):
    """An unfinished study's inputs have changed; `difference` has the lines."""

    def __init__(self, study: str, difference: list[str]) -> None:
        super().__init__(
            "The experiment has changed since its study began, and the study is not finished.",
            where=study,
            why="recorded episodes, or a phase that has started, depend on what has changed",
            do="undo the change, or use --fresh to start a new study and keep the old record",
        )
        self.difference = difference

    def __str__(self) -> str:
        shown = [f"  {plain(line)}" for line in self.difference]
        return "\n".join([super().__str__(), *shown[:MOST_LINES]])


def open_study(
    storage: Storage, experiment: Experiment, now: StudyDocument, *, fresh: bool
) -> tuple[Record, StudyTrials]:
    """Return the study to work on: the last one if it can resume or is finished, else a new one.

    An unfinished study adopts changes that are allowed, such as a raised limit.

    Raises:
        StudyChangedError: The last study is unfinished, and other inputs have changed.
        ConfigError: It is unfinished and its document is unreadable, or its sampler is not available.
    """
    store = storage.store
    with store.exclusively():
        latest = None if fresh else store.latest(experiment.name)
        if latest is not None:
            record = Record(store, *latest)
            trials = open_trials(storage, record.name, experiment)
            if _resumes(record, trials, experiment, now):
                return record, trials.widened(distributions_of(experiment))
        made = (make_sampler(experiment), make_pruner(experiment))  # before anything is written
        name = store.begin(experiment.name, now.as_json())
        return Record(store, name, now.as_json()), StudyTrials.opened(storage.optuna, name, *made)


def open_trials(storage: Storage, study: str, experiment: Experiment) -> StudyTrials:
    """Return a study's trials, with the experiment's sampler and pruner."""
    made = (make_sampler(experiment), make_pruner(experiment))
    return StudyTrials.opened(storage.optuna, study, *made)


def _resumes(record: Record, trials: StudyTrials, experiment: Experiment, now: StudyDocument) -> bool:
    """Whether to work on the last study, which adopts allowed changes."""
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


def check_alone(store: Store, study: str) -> None:
    """Refuse a study on which other workers of a shared storage are working; wait for one that just died.

    Raises:
        ConfigError: Another process is working on it.
    """
    until_s = time.monotonic() + GRACE_S
    while not store.lead(study):
        if time.monotonic() > until_s:
            what = "Another process is working on this experiment's study."
            raise ConfigError(what, where=study, do="use --worker to join it, or stop it")
        time.sleep(BEAT_S)


@contextmanager
def alone(experiment: str, folder: Path) -> Iterator[None]:
    """Lock the experiment's studies for this process; the system releases the lock when it ends.

    Raises:
        ConfigError: Another process is working on them.
        LabError: The folder is not writable.
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
