"""Tracking: what happens goes to MLflow from a thread of its own.

It watches and decides nothing. Nobody waits for it before the end. What MLflow refuses costs that item alone:
the study continues, and its result lists what is missing.
"""

import asyncio
import gc
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from lab.agent.evaluation import Trial
from lab.experiment.experiment import Experiment
from lab.llm.settings import ModelChoice
from lab.proposers.proposal import Proposals
from lab.search.headroom import Headroom
from lab.storage.record import Record
from lab.submission.frozen import FrozenPrompt
from lab.tracking.missed import Missed, is_gone
from lab.tracking.runs import MlflowStore, Status
from lab.verdict.verdict import Verdict

FINISH_S = 60.0
"""Seconds that a study with a verdict waits for MLflow at most."""

FLUSH_S = 4.0
"""Seconds that a study without one does: whoever stopped it may kill it soon."""

SILENT_S = 2.0
"""Seconds of waiting that are not worth a word."""

AGAIN_S = 30.0
"""Seconds before a store that could not be opened is opened again."""

LATE = "MLflow did not answer in time"


@dataclass(frozen=True)
class _Job:
    """What is written together, by what people call it; the `last` is written however late it is."""

    what: str
    write: Callable[[MlflowStore], None]
    last: bool = False


class Tracker:
    """Writes one study to MLflow, in the order that it is told. A study without a trial leaves no run.

    What is told again, of a study that goes on, finds its runs there and adds none. Nothing is written before
    `lead`: of several workers one writes, and a replay touches no server.
    """

    def __init__(
        self, experiment: Experiment, model: ModelChoice, record: Record, warn: Callable[[str], None]
    ) -> None:
        self._warn, self._told, self._leads = warn, False, False
        self._missed = Missed(warn)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._ending, self._until = threading.Event(), float("inf")
        self._at: _Job | None = None
        arguments = (experiment, model, record)
        self._thread = threading.Thread(target=self._run, args=arguments, name="tracking", daemon=True)

    @property
    def missing(self) -> list[str] | None:
        """What MLflow did not take and why, a line for each reason; None where nothing was to be written."""
        return self._missed.lines if self._leads else None

    def lead(self) -> None:
        """Write from now on, and what was told before."""
        if not self._leads:
            self._leads = True
            self._thread.start()

    def trial(self, trial: Trial) -> None:
        """A trial of the search has ended a rung."""
        self._tell(f"the run {trial.name}", lambda store: store.trial(trial))

    def headroom(self, headroom: Headroom) -> None:
        """The first candidates have played."""
        self._tell("the headroom test", lambda store: store.headroom(headroom))

    def proposals(self, number: int, proposals: Proposals) -> None:
        """A round of proposals has ended."""
        self._tell(f"round {number} of proposals", lambda store: store.proposals(number, proposals))

    def verdict(self, verdict: Verdict) -> None:
        """The holdout was played and judged."""
        self._tell("the runs of confirmation and holdout", lambda store: store.verdict(verdict))

    def frozen(self, frozen: FrozenPrompt) -> None:
        """A prompt was frozen."""
        self._tell("the verdict", lambda store: store.frozen(frozen))

    def report(self, make: Callable[[], str]) -> None:
        """The report on the study is to be made, here and not by who waits for the result."""
        self._tell("report.html", lambda store: self._report(store, make))

    async def finish(self, status: Status = "FINISHED", timeout_s: float = FINISH_S) -> None:
        """Wait until everything is written, and close the parent run; Ctrl-C or SIGTERM ends the wait."""
        if not self._end(status, timeout_s):
            return
        began_s, told = time.monotonic(), False
        try:
            while self._thread.is_alive() and (waited_s := time.monotonic() - began_s) < timeout_s:
                if waited_s > SILENT_S and not told:
                    told = True
                    self._warn(f"Waiting for MLflow, {timeout_s:g} s at most; Ctrl-C ends the wait.")
                await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            if task := asyncio.current_task():
                task.uncancel()
        self._count_left()

    def close(self, status: Status, timeout_s: float = FLUSH_S) -> None:
        """The same, blocking; what is left over after `timeout_s` is written when the study resumes."""
        if self._end(status, timeout_s):
            with suppress(KeyboardInterrupt):
                self._thread.join(timeout_s)
            self._count_left()

    def _end(self, status: Status, timeout_s: float) -> bool:
        """Whether there is anything to wait for."""
        if not (self._told and self._leads):
            return False
        self._jobs.put(_Job("the study's end", lambda store: store.end(status), last=True))
        self._jobs.put(None)
        self._until = time.monotonic() + 0.8 * timeout_s  # the rest is for the last job
        self._ending.set()
        return True

    def _count_left(self) -> None:
        """What has not been written now never is."""
        waiting = [self._at] if self._thread.is_alive() else []
        with suppress(queue.Empty):
            while True:
                waiting.append(self._jobs.get_nowait())
        for job in waiting:
            if job is not None and not self._missed.whole:
                self._missed.add(job.what, LATE)

    def _report(self, store: MlflowStore, make: Callable[[], str]) -> None:
        try:
            page = make()
        except Exception as error:  # a page that cannot be made costs nothing else
            self._warn(f"The report for MLflow could not be made: {type(error).__name__}: {error}")
        else:
            store.report(page)

    def _tell(self, what: str, write: Callable[[MlflowStore], None]) -> None:
        self._told = True
        self._jobs.put(_Job(what, write))

    def _run(self, experiment: Experiment, model: ModelChoice, record: Record) -> None:
        self._at = (
            self._jobs.get()
        )  # opening imports MLflow; any earlier, and the study's own imports would wait
        if self._at is None:
            return
        store = self._opened(lambda: MlflowStore(experiment, model, record, self._missed, self._warn))
        gc.freeze()  # as in `lab.study.study`: MLflow's imports are as many again
        while store is not None and self._at is not None and self._write(store, self._at):
            self._at = self._jobs.get()

    def _opened(self, open_store: Callable[[], MlflowStore]) -> MlflowStore | None:
        """The store; None where it cannot be opened before the study ends."""
        while True:
            try:
                store = open_store()
            except Exception as error:  # whatever MLflow raises, a study is worth more than its log
                self._missed.add_all(error)
                if self._ending.wait(AGAIN_S):
                    return None
            else:
                self._missed.took_all()
                return store

    def _write(self, store: MlflowStore, job: _Job) -> bool:
        """Whether there is any use in the next job."""
        if time.monotonic() > self._until and not job.last:
            self._missed.add(job.what, LATE)
            return True
        try:
            job.write(store)
        except Exception as error:
            self._missed.add(job.what, error)
            return not (self._ending.is_set() and is_gone(error))
        self._missed.took(job.what)
        return True
