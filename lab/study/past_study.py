"""A past study, read back from what was kept of it: its trials, and its outcome where it has one.

What it was run with is its document's, so neither today's experiment file nor today's variables are needed.
Nothing is asked, played or written. Whatever shows, compares or plays what a study tried begins here.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from lab.agent.candidate import Candidate
from lab.agent.evaluation import Trial
from lab.errors import ConfigError, meant
from lab.experiment.budget import Spending
from lab.experiment.experiment import Experiment, load_experiment, read_experiment
from lab.llm.settings import ModelChoice, read_surroundings
from lab.storage.database import CALLS
from lab.storage.record import NotFinishedError, Record
from lab.storage.storage import Storage, address_of, is_there
from lab.storage.trials import StudyTrials, Trials
from lab.study.document import Kept, kept
from lab.study.resume import open_trials
from lab.study.state import StudyState, as_learnt, outcome_of, read_state, spending_of
from lab.tracking.tracker import Tracker
from lab.verdict.outcome import Outcome

Say = Callable[[str], None]
"""Gets a line for people, which is no result."""


@dataclass(frozen=True)
class Which:
    """The study that a person asks for.

    Attributes:
        experiment: the experiment file; its last study is meant where there is no name.
        name: the study's own; it takes precedence.
        storage: the database's address; empty for `LAB_STORAGE`, or the file in this folder.
    """

    experiment: Path
    name: str = ""
    storage: str = ""

    @property
    def root(self) -> Path:
        """The project's folder."""
        return Path.cwd() if self.name else self.experiment.resolve().parent.parent


@dataclass(frozen=True)
class PastStudy:
    """A study that is read.

    Attributes:
        model: its endpoint is as it may be shown.
        outcome: None where the study has no verdict yet.
        record: open while the study is read.
        tracker: has been told of all this, and writes nothing to MLflow unless it leads.
        proposer: the model that proposed texts, where it was not the one that played; else empty.
    """

    experiment: Experiment
    model: ModelChoice
    state: StudyState
    outcome: Outcome | None
    record: Record
    search: Trials
    tracker: Tracker
    proposer: str = ""

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Of the search, best first, the baseline among them."""
        return self.state.trials

    def finished(self) -> Outcome:
        """The outcome.

        Raises:
            LabError: the study has no verdict yet, or was stopped by this.
        """
        if self.state.stopped is not None:
            raise self.state.stopped
        if self.outcome is None:
            where = f"{self.record.name} in {self.record.store.where}"
            do = f"python -m lab.tune {self.experiment.file} resumes the experiment's last study; "
            do += f"python -m lab.report --study {self.record.name} shows this one so far"
            raise NotFinishedError("The study is unfinished: no verdict yet.", where=where, do=do)
        return self.outcome

    def candidate(self, name: str) -> Candidate:
        """The candidate of a trial: `baseline`, `trial-012` or `12`.

        Raises:
            ConfigError: the study has no such trial.
        """
        wanted = f"trial-{int(name):03d}" if name.isdecimal() else name
        found = next((trial.candidate for trial in self.trials if trial.name == wanted), None)
        if found is None:
            known = sorted(trial.name for trial in self.trials)
            do = meant(wanted, known, f"use one of: {', '.join(known) or 'none yet'}")
            raise ConfigError(f"There is no {wanted!r}.", where=self.record.name, do=do)
        return found


@asynccontextmanager
async def past_study(which: Which, say: Say = lambda _: None) -> AsyncIterator[PastStudy]:
    """Read a study, as far as it is.

    Args:
        say: gets a line where the experiment's file has changed since, and what the tracker meets at MLflow.

    Raises:
        ConfigError: see `kept_study`.
    """
    with kept_study(which, say) as (was, record, storage):
        trials = open_trials(storage, record.name, was.experiment)
        tracker = Tracker(was.experiment, was.model, record, say)
        spending = spending_of(was.experiment, was.model, record, was.proposer)
        past = read_study(was.experiment, was.model, record, trials, tracker, spending)
        tell(past)
        yield replace(past, proposer=was.proposer)


def read_study(
    experiment: Experiment,
    model: ModelChoice,
    record: Record,
    trials: StudyTrials,
    tracker: Tracker,
    spending: Spending,
) -> PastStudy:
    """Return a study as far as it is.

    Args:
        spending: What this process and others spent.
    """
    state, model = read_state(experiment, record, trials), as_learnt(model, trials)
    outcome = outcome_of(experiment, model, record, spending, state) if state.judged else None
    return PastStudy(experiment, model, state, outcome, record, trials.search, tracker)


def tell(past: PastStudy) -> None:
    """Tell the study's tracker what it is."""
    tracker, state = past.tracker, past.state
    for trial in sorted(state.trials, key=lambda one: one.number):
        tracker.trial(trial)
    if state.headroom is not None:
        tracker.headroom(state.headroom)
    if state.judged is not None and state.verdict is not None:
        tracker.verdict(state.verdict)


@contextmanager
def kept_study(which: Which, say: Say) -> Iterator[tuple[Kept, Record, Storage]]:
    """What a study was run with, and its record in the storage, which is open in the context.

    Raises:
        ConfigError: there is no such study, or its document cannot be read.
    """
    read_surroundings(Path.cwd())
    storage = open_storage(which.storage)
    if storage is None:
        raise _nothing(which, str(CALLS), [])
    with closing(storage):
        store = storage.store
        found = store.study(which.name) if which.name else store.latest(which.experiment.stem)
        if found is None:
            raise _nothing(which, store.where, store.names())
        name, document = found
        was = kept(document, f"{name} in {store.where}", which.root)
        if not which.name and (note := _changed(which.experiment, name, was.experiment)):
            say(note)
        yield was, Record(store, name, document), storage


def open_storage(flag: str) -> Storage | None:
    """The storage at `flag`, else `LAB_STORAGE`, else the files; None where they are absent: none is made."""
    address = address_of(flag)
    return Storage.at(address, writing=False) if is_there(address) else None


def _nothing(which: Which, where: str, names: list[str]) -> ConfigError:
    if which.name:
        do = meant(which.name, names, "python -m lab.studies lists them")
        return ConfigError(f"There is no study {which.name!r}.", where=where, do=do)
    load_experiment(which.experiment)  # that there is no such experiment is the better message
    do = f"python -m lab.tune {which.experiment}"
    return ConfigError("No study of this experiment was recorded.", where=where, do=do)


def _changed(path: Path, study: str, was: Experiment) -> str:
    """What is said where the experiment's file is not what the study was run with; empty where it is."""
    try:
        today = read_experiment(load_experiment(path).source, was.root)
    except ConfigError as error:
        return f"{path}: {error.what} {study} is read as it was recorded."
    same = replace(today, text="") == replace(was, text="")
    return "" if same else f"{path} has changed since {study}, which is read as it was recorded."
