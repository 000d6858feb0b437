"""A past study, read from its record: its trials, and its outcome if it has one.

Its inputs come from its document, so the current experiment file and variables are not needed. Reading makes
no calls and writes nothing. All commands that show, compare or play a study's candidates use it.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from lab.agent.evaluation import Trial, trial_name
from lab.errors import ConfigError, meant
from lab.experiment.budget import Spending
from lab.experiment.experiment import Experiment, load_experiment, read_experiment
from lab.llm.settings import ModelChoice, read_surroundings
from lab.storage.database import CALLS
from lab.storage.record import NotFinishedError, Record
from lab.storage.storage import Storage, address_of, is_there
from lab.storage.study_trials import StudyTrials
from lab.storage.trials import Trials
from lab.study.document import kept
from lab.study.resume import open_trials
from lab.study.state import StudyState, as_learnt, outcome_of, read_state, spending_of
from lab.tracking.tracker import Tracker
from lab.verdict.outcome import Outcome
from lab.verdict.verdict import Verdict

Say = Callable[[str], None]
"""Called with a line for people."""


@dataclass(frozen=True)
class Which:
    """The study that the user asks for.

    Attributes:
        experiment: The experiment file, for its last study.
        name: Name of the study; takes precedence if not empty.
        storage: Address of the storage; empty for `LAB_STORAGE`, or the default file.
    """

    experiment: Path
    name: str = ""
    storage: str = ""

    @property
    def root(self) -> Path:
        """The project folder."""
        return Path.cwd() if self.name else self.experiment.resolve().parent.parent


@dataclass(frozen=True)
class PastStudy:
    """A study that was read.

    Attributes:
        model: The model; its endpoint is without credentials.
        outcome: None if the study has no verdict yet.
        record: Open in the context.
        tracker: A tracker with all of the study's events, which writes to MLflow only if it leads.
        spending: The amounts spent by all processes.
    """

    experiment: Experiment
    model: ModelChoice
    state: StudyState
    outcome: Outcome | None
    record: Record
    search: Trials
    tracker: Tracker
    spending: Spending

    @property
    def storage(self) -> Storage:
        """The storage, which is open in the context."""
        return Storage(self.record.store, self.search.storage)

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Trials of the search with the baseline, best first."""
        return self.state.trials

    @property
    def verdict(self) -> Verdict | None:
        """The comparison on the holdout; None if the study has no verdict yet."""
        return self.outcome.verdict if self.outcome else None

    def finished(self) -> Outcome:
        """The outcome.

        Raises:
            LabError: The study has no verdict yet, or was stopped by this error.
        """
        if self.state.stopped is not None:
            raise self.state.stopped
        if self.outcome is None:
            where = f"{self.record.name} in {self.record.store.where}"
            do = f"python -m lab.tune {self.experiment.file} resumes the experiment's last study; "
            do += f"python -m lab.report --study {self.record.name} shows this one so far"
            raise NotFinishedError("The study is unfinished: no verdict yet.", where=where, do=do)
        return self.outcome

    def trial(self, which: str | int) -> Trial:
        """The trial of this name or number: `baseline`, `trial-012` or `12`.

        Raises:
            ConfigError: The study has no such trial.
        """
        wanted = trial_name(int(which)) if str(which).isdecimal() else which
        found = next((trial for trial in self.trials if trial.name == wanted), None)
        if found is None:
            known = sorted(trial.name for trial in self.trials)
            do = meant(str(wanted), known, f"use one of: {', '.join(known) or 'none yet'}")
            raise ConfigError(f"The study has no trial {wanted!r}.", where=self.record.name, do=do)
        return found


@contextmanager
def reading(which: Which, say: Say = lambda _: None) -> Iterator[PastStudy]:
    """Read a study, finished or not.

    Args:
        say: Called with a line if the experiment's file has changed since, and with MLflow's failures.

    Raises:
        ConfigError: As `read_past`.
    """
    read_surroundings(Path.cwd())
    storage = open_storage(which.storage)
    if storage is None:
        raise _nothing(which, str(CALLS), [])
    with closing(storage):
        yield read_past(storage, which, say)


def read_study(
    experiment: Experiment,
    model: ModelChoice,
    record: Record,
    trials: StudyTrials,
    tracker: Tracker,
    spending: Spending,
) -> PastStudy:
    """Return a study, finished or not."""
    experiment, model = as_learnt(experiment, model, trials)
    state = read_state(experiment, record, trials)
    outcome = outcome_of(experiment, model, record, spending, state) if state.judged else None
    return PastStudy(experiment, model, state, outcome, record, trials.search, tracker, spending)


def tell(past: PastStudy) -> None:
    """Send all of the study's events to its tracker."""
    tracker, state = past.tracker, past.state
    for trial in sorted(state.trials, key=lambda one: one.number):
        tracker.trial(trial)
    if state.headroom is not None:
        tracker.headroom(state.headroom)
    if state.judged is not None and state.verdict is not None:
        tracker.verdict(state.verdict)


def read_past(storage: Storage, which: Which, say: Say = lambda _: None) -> PastStudy:
    """Read a study of a storage that is open; see `reading`.

    Raises:
        ConfigError: The study does not exist, or its document cannot be read.
    """
    store = storage.store
    found = store.study(which.name) if which.name else store.latest(which.experiment.stem)
    if found is None:
        raise _nothing(which, store.where, store.names())
    name, document = found
    experiment, model, proposer = kept(document, f"{name} in {store.where}", which.root)
    if not which.name and (note := _changed(which.experiment, name, experiment)):
        say(note)
    record, trials = Record(store, name, document), open_trials(storage, name, experiment)
    tracker = Tracker(experiment, model, record, say)
    spending = spending_of(experiment, model, record, trials, proposer)
    past = read_study(experiment, model, record, trials, tracker, spending)
    tell(past)
    return past


def open_storage(flag: str) -> Storage | None:
    """The storage at `flag`, else `LAB_STORAGE`, else the files; None if absent: none is created."""
    address = address_of(flag)
    return Storage.at(address, writing=False) if is_there(address) else None


def _nothing(which: Which, where: str, names: list[str]) -> ConfigError:
    if which.name:
        do = meant(which.name, names, "python -m lab.studies lists them")
        return ConfigError(f"The study {which.name!r} does not exist.", where=where, do=do)
    load_experiment(which.experiment)  # a missing experiment file has a more helpful error
    do = f"python -m lab.tune {which.experiment}"
    if names:
        do += f"; or add --study {names[-1]}, the newest here; python -m lab.studies lists all"
    return ConfigError(f"No study of {which.experiment} was recorded.", where=where, do=do)


def _changed(path: Path, study: str, was: Experiment) -> str:
    """A sentence if the experiment's file differs from the study's; else empty."""
    try:
        today = read_experiment(load_experiment(path).source, was.root)
    except ConfigError as error:
        return f"{path}: {error.what} Using {study} as recorded."
    same = replace(today, text="") == replace(was, text="")
    return "" if same else f"{path} has changed since {study}; using the study as recorded."
