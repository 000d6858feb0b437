"""A past study, read back from its record: its trials, and its outcome where it has one.

Nothing is asked, played or written. Whatever shows, compares or plays what a study tried begins here.
"""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

from lab.agent.candidate import Candidate
from lab.agent.evaluation import Trial
from lab.display.progress import ProgressView
from lab.errors import ConfigError, meant
from lab.experiment.experiment import Experiment, load_experiment
from lab.llm.settings import ModelChoice, choose_model, read_surroundings, shown_proposer
from lab.storage.database import CALLS, Store
from lab.storage.record import NothingRecordedError, Record
from lab.study.document import document
from lab.study.resume import StudyChangedError, open_record
from lab.study.study import Study
from lab.tracking.tracker import Tracker
from lab.verdict.outcome import Outcome


@dataclass(frozen=True)
class PastStudy:
    """An experiment's last study.

    Attributes:
        trials: best first, the baseline among them.
        outcome: None where the study has no verdict yet.
        record: open while the study is read.
        tracker: has been told of all this, and writes nothing to MLflow unless it leads.
    """

    experiment: Experiment
    model: ModelChoice
    trials: tuple[Trial, ...]
    outcome: Outcome | None
    record: Record
    tracker: Tracker

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
async def past_study(
    path: Path, storage: str = "", say: Callable[[str], None] | None = None
) -> AsyncIterator[PastStudy]:
    """Read the last study of the experiment file at `path`, from `storage` or the file in this folder.

    Args:
        say: gets a line for what `PastStudy.tracker` meets at MLflow.

    Raises:
        ConfigError: there is none, or the experiment, its templates or the model are not what they were.
    """
    read_surroundings(Path.cwd())
    experiment = load_experiment(path)
    model = choose_model(experiment.model)
    place = storage or os.environ.get("LAB_STORAGE") or CALLS
    if place == CALLS and not CALLS.exists():  # and none is made
        raise _nothing(path, str(CALLS))
    with closing(Store(place)) as store:
        depends_on = document(experiment, model, shown_proposer())
        try:
            record = open_record(store, experiment, depends_on, fresh=False, replay=True)
        except NothingRecordedError:
            raise _nothing(path, store.where) from None
        except StudyChangedError as error:
            error.what = (
                "The experiment is not what it was when its last study began: its trials cannot be read."
            )
            error.do = f"change it back, or begin a new study: python -m lab.tune {path}"
            raise
        view = ProgressView(experiment.space.free, quiet=True)
        tracker = Tracker(experiment, model, record, say or view.say)
        study = Study(experiment, model, record, view, tracker)
        outcome = await study.replay() if record.judged else None
        trials = outcome.trials if outcome else tuple(study.so_far())
        yield PastStudy(experiment, model, trials, outcome, record, tracker)


def _nothing(path: Path, where: str) -> ConfigError:
    do = f"python -m lab.tune {path}"
    return ConfigError("No study of this experiment was recorded.", where=where, do=do)
