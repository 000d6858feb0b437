"""Resume: whether a command starts, resumes, continues or repeats a study, or must refuse.

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
from lab.experiment.budget import ANY, BASELINES, Calls
from lab.experiment.experiment import Experiment
from lab.experiment.schema import MOST_UNSEEN
from lab.llm.settings import ModelChoice
from lab.search.samplers import make_pruner, make_sampler
from lab.search.trials import distributions_of
from lab.storage.database import Store
from lab.storage.keys import CONFIRMATION, HOLDOUT
from lab.storage.optuna_storage import BEAT_S, GRACE_S
from lab.storage.record import Record
from lab.storage.storage import Storage
from lab.storage.study_trials import StudyTrials
from lab.study.document import Reached, StudyDocument, difference, may_become, read_document, unreadable
from lab.study.state import spending_of

MOST_LINES = 40
"""Maximum lines of a difference that are shown."""

MOST_VERDICTS = (HOLDOUT - CONFIRMATION) // MOST_UNSEEN
"""Maximum verdicts of a study: the number for which there are unseen seeds."""


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
    storage: Storage, experiment: Experiment, model: ModelChoice, now: StudyDocument, *, fresh: bool
) -> tuple[Record, StudyTrials, str]:
    """Return the study to work on: the last one if it can resume, continue or is finished, else a new one.

    An unfinished study adopts changes that are allowed, such as a raised limit. So does a finished one if the
    limits have room: its search continues to another verdict.

    Returns:
        The record, the trials, and the reason why the last study, which has finished, does not continue. The
        reason is empty if it continues, or if no study has finished.

    Raises:
        StudyChangedError: The last study is unfinished, and other inputs have changed.
        ConfigError: It is unfinished and its document is unreadable, or its sampler is not available.
    """
    store, obstacle = storage.store, ""
    with store.exclusively():
        latest = None if fresh else store.latest(experiment.name)
        if latest is not None:
            record, space = Record(store, *latest), distributions_of(experiment)
            trials = open_trials(storage, record.name, experiment)
            resumes = _resumes(record, trials, experiment, now)
            obstacle = "" if resumes else _obstacle(record, trials, experiment, model, now)
            if not obstacle:
                if not (resumes and trials.fit(space)):
                    _check_idle(store, record.name)
                    trials = trials.widened(space) if resumes else trials.continued(space)
                if record.document != now.as_json():
                    record.change(now.as_json())
                return record, trials, ""
        made = (make_sampler(experiment), make_pruner(experiment))  # before anything is written
        name = store.begin(experiment.name, now.as_json())
        record = Record(store, name, now.as_json())
        return record, StudyTrials.opened(storage.optuna, name, *made), obstacle


def open_trials(storage: Storage, study: str, experiment: Experiment) -> StudyTrials:
    """Return a study's trials, with the experiment's sampler and pruner."""
    made = (make_sampler(experiment), make_pruner(experiment))
    return StudyTrials.opened(storage.optuna, study, *made)


def _resumes(record: Record, trials: StudyTrials, experiment: Experiment, now: StudyDocument) -> bool:
    """Whether the last study is finished and unchanged, or unfinished with allowed changes."""
    over = any(trials.search.fact(key) is not None for key in ("judged", "stopped"))
    before = read_document(record.document)
    if before is None and not over:
        raise unreadable(record.name)
    if before is None or (before != now and over):
        return False
    if not may_become(before, now, _reached(record, trials, experiment)):
        raise StudyChangedError(record.name, difference(before, now))
    return True


def _obstacle(
    record: Record, trials: StudyTrials, experiment: Experiment, model: ModelChoice, now: StudyDocument
) -> str:
    """Why a finished study does not continue with the changes; empty if it does."""
    before = read_document(record.document)
    if before is None:
        return "another version of the lab recorded it"
    if trials.search.fact("judged") is None:
        return "it was stopped"
    if not may_become(before, now, Reached()):
        return "a change affects its episodes"
    spending, verdict = spending_of(experiment, model, record, trials), experiment.verdict_calls
    episode = Calls({ANY: experiment.task.max_steps})
    if spending.time_is_up or not spending.room_for(episode, Calls({BASELINES: verdict})):
        left = f"the limits leave {spending.left}; another verdict needs up to {verdict:,} calls"
        if before.raises_limit(now):
            do = "raise them further, or use --fresh to start a new study"
            raise ConfigError("The raised limits have no room for more.", where=record.name, why=left, do=do)
        return left
    if len(trials.earlier) + 1 >= MOST_VERDICTS:
        return f"it has {MOST_VERDICTS} verdicts"
    return ""


def _reached(record: Record, trials: StudyTrials, experiment: Experiment) -> Reached:
    first = experiment.seed + len(trials.earlier) * MOST_UNSEEN
    confirming, holdout = (
        any(0 <= seed - first - phase < MOST_UNSEEN for _, seed in record.ended)
        for phase in (CONFIRMATION, HOLDOUT)
    )
    return Reached(trials.search.fact("searched") is not None, confirming or holdout, holdout)


def _check_idle(store: Store, study: str) -> None:
    """Refuse to copy the trials of a study on which workers of a shared storage are working."""
    if store.shared and store.is_led(study):
        what = "The experiment has changed, and workers are working on its study."
        raise ConfigError(what, where=study, do="wait for them or stop them, and start them again")


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
