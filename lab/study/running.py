"""A Run: this process's work on a study, from opening the storage to MLflow's last item.

It starts, resumes or repeats the experiment's study. `lab.tune` and `lab.run_study` share it; flags, signals
and what becomes of the result are theirs.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

from lab.display.progress import ProgressView
from lab.experiment.experiment import Experiment
from lab.llm.launch import opening_model
from lab.llm.settings import choose_model, shown_proposer
from lab.search.first_answers import read_stopped
from lab.storage.database import CALLS
from lab.storage.storage import Storage
from lab.study.around import first_lines, heading
from lab.study.document import document
from lab.study.past_study import PastStudy, read_study, tell
from lab.study.resume import alone, check_alone, open_study
from lab.study.state import spending_of
from lab.study.study import Study
from lab.tracking.tracker import Tracker
from lab.verdict.outcome import Unvalidated

Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Run:
    """One run of an experiment, on the model that the environment variables or its file name.

    Attributes:
        storage: Address of the storage; empty for the default files.
        worker: Whether to share the study with other workers.
    """

    experiment: Experiment
    view: ProgressView
    storage: str = ""
    fresh: bool = False
    worker: bool = False

    async def result(
        self,
        keep: Callable[[PastStudy | Unvalidated], Kept],
        last: ExitStack,
        on_start: Callable[[Study], None] = lambda _: None,
    ) -> tuple[Kept, Tracker]:
        """Play the study to its end; a finished one is read again without a call.

        Args:
            keep: Takes the result while its record is open.
            last: Unwound by the caller after an error has been printed: it waits for MLflow.
            on_start: Called with the study before its first call.

        Returns:
            What `keep` returned, and the tracker, which says what MLflow rejected.

        Raises:
            LabError: As `Study.run`; or the study cannot resume, or another process is working on it.
        """
        experiment, say = self.experiment, self.view.say
        model = choose_model(experiment.model)
        depends_on = document(experiment, model, shown_proposer())
        with (
            nullcontext() if self.storage else alone(experiment.name, CALLS.parent),
            closing(Storage.at(self.storage)) as opened,
        ):
            before = None if self.fresh else opened.store.latest(experiment.name)
            record, trials, obstacle = open_study(opened, experiment, model, depends_on, fresh=self.fresh)
            if stopped := read_stopped(trials.search):
                raise stopped
            tracker = Tracker(experiment, model, record, say)
            if trials.search.fact("judged") is not None:
                spending = spending_of(experiment, model, record, trials)
                past = read_study(experiment, model, record, trials, tracker, spending)
                if not self.worker:
                    tracker.lead(past.finished().frozen_prompt())
                tell(past)
                for line in heading(past):
                    say(line)
                with _closing(tracker, last):
                    kept = keep(past)
                await tracker.finish("FINISHED")  # it reads the store, which is closed below
                return kept, tracker
            study = Study(experiment, model, record, trials, self.view, tracker)
            on_start(study)
            for line in first_lines(study, record, before[0] if before else None, obstacle):
                say(line)
            with _closing(tracker, last):
                if not self.worker:
                    check_alone(opened.store, record.name)
                no_model = study.spending.used_up() is not None
                with nullcontext() if no_model else opening_model(study.model) as opening:
                    played = await study.run(opening)
                kept = keep(played)
            await tracker.finish("KILLED" if isinstance(played, Unvalidated) else "FINISHED")
        return kept, tracker


@contextmanager
def _closing(tracker: Tracker, last: ExitStack) -> Iterator[None]:
    """If the block raises, close the study's run in MLflow after the error has been printed."""
    try:
        yield
    except BaseException as error:
        last.callback(tracker.close, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise
