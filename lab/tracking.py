"""Tracking: what happens goes to MLflow from a thread of its own.

It watches and decides nothing. Nobody waits for it before the end, and where MLflow fails it says so once
and the tuning goes on.
"""

import gc
import queue
import threading
from collections.abc import Callable

from lab.errors import without_credentials
from lab.experiment import Experiment
from lab.frozen import FrozenPrompt
from lab.headroom import Headroom
from lab.mlflow_store import MlflowStore, Status
from lab.proposal import Proposals
from lab.record import Record
from lab.settings import ModelChoice
from lab.trial import Trial
from lab.verdict import Verdict

_Job = Callable[[MlflowStore], None]


class Tracker:
    """Writes one study to MLflow, in the order that it is told. A study without a trial leaves no run.

    What is told again, of a study that goes on, finds its runs there and adds none. Nothing is written before
    `lead`: of several workers one writes, and a replay touches no server.
    """

    def __init__(
        self, experiment: Experiment, model: ModelChoice, record: Record, warn: Callable[[str], None]
    ) -> None:
        self._warn, self._told, self._leads = warn, False, False
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        arguments = (experiment, model, record)
        self._thread = threading.Thread(target=self._run, args=arguments, name="tracking", daemon=True)

    def lead(self) -> None:
        """Write from now on, and what was told before."""
        if not self._leads:
            self._leads = True
            self._thread.start()

    def trial(self, trial: Trial) -> None:
        """A trial of the search has ended a rung."""
        self._tell(lambda store: store.trial(trial))

    def headroom(self, headroom: Headroom) -> None:
        """The first candidates have played."""
        self._tell(lambda store: store.headroom(headroom))

    def proposals(self, number: int, proposals: Proposals) -> None:
        """A round of proposals has ended."""
        self._tell(lambda store: store.proposals(number, proposals))

    def verdict(self, verdict: Verdict) -> None:
        """The holdout was played and judged."""
        self._tell(lambda store: store.verdict(verdict))

    def frozen(self, frozen: FrozenPrompt) -> None:
        """A prompt was frozen."""
        self._tell(lambda store: store.frozen(frozen))

    def report(self, make: Callable[[], str]) -> None:
        """The report on the study is to be made, here and not by who waits for the result."""
        self._tell(lambda store: self._report(store, make))

    def close(self, status: Status, timeout_s: float = 60.0) -> None:
        """Wait until everything is written, `timeout_s` at most, and close the parent run."""
        if not (self._told and self._leads):
            return
        self._jobs.put(lambda store: store.end(status))
        self._jobs.put(None)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._warn(f"MLflow did not take everything in {timeout_s:g} s; its runs may be incomplete.")

    def _report(self, store: MlflowStore, make: Callable[[], str]) -> None:
        try:
            page = make()
        except Exception as error:  # a page that cannot be made costs nothing else
            self._warn(f"The report for MLflow could not be made: {type(error).__name__}: {error}")
        else:
            store.report(page)

    def _tell(self, job: _Job) -> None:
        self._told = True
        self._jobs.put(job)

    def _run(self, experiment: Experiment, model: ModelChoice, record: Record) -> None:
        try:
            store: MlflowStore | None = None
            while (job := self._jobs.get()) is not None:
                if store is None:  # it imports MLflow; any earlier, and the study's own imports would wait
                    store = MlflowStore(experiment, model, record)
                    gc.freeze()  # as in `lab.study`: MLflow's imports are as many again
                job(store)
        except Exception as error:  # whatever MLflow raises, a study is worth more than its log
            reason = without_credentials(" ".join(str(error).split()))[:300]
            self._warn(f"MLflow failed, and the tuning goes on without it: {type(error).__name__}: {reason}")
