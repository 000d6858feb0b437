"""Tracking: sends a study's events to MLflow from a separate thread.

It decides nothing, and the study waits for it only at the end. If MLflow rejects an item, the study
continues, and its result lists what is missing.
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
from lab.submission.freeze import frozen_text
from lab.submission.frozen import FrozenPrompt
from lab.tracking.missed import STUDY, Missed, is_gone
from lab.tracking.runs import MlflowStore, Status
from lab.tracking.store import contents_of, is_written, tracking_file
from lab.verdict.verdict import Verdict

SERVER_S, FILE_S = 60.0, 180.0
"""Maximum seconds that a study with a verdict waits for MLflow's server, which may hang, and for its file,
which takes as long as this machine needs."""

FLUSH_S = 4.0
"""Maximum seconds that a stopped study waits: it may be killed soon."""

SILENT_S = 2.0
"""Seconds of waiting before it is announced."""

AGAIN_S = 30.0
"""Seconds between attempts to open the store."""

SHARE = 0.2
"""Maximum share of the search's time for which the thread computes, because Python computes in one thread at
a time. What it puts off is written later, each trial once, with its newest rung."""

LATE = "MLflow did not answer in time"


@dataclass(frozen=True)
class _Job:
    """Items that are written together, and their name for people; the `last` job ignores the time limit."""

    what: str
    write: Callable[[MlflowStore], None]
    last: bool = False


class Tracker:
    """Writes one study to MLflow, in the order of its events. A study without a trial leaves no run.

    A resumed study's repeated events find their runs there and add none. Nothing is written before `lead`:
    only one of several workers writes, and a replay contacts no server.

    Attributes:
        urls: URLs of the study's pages by what they show; empty without a tracking server.
    """

    def __init__(
        self, experiment: Experiment, model: ModelChoice, record: Record, warn: Callable[[str], None]
    ) -> None:
        self._warn, self._has_jobs, self._leads = warn, False, False
        self._missed, self._jobs = Missed(warn), queue.SimpleQueue[_Job | None]()
        self._ending, self._until = threading.Event(), float("inf")
        self._at: _Job | None = None
        self.urls = dict[str, str]()
        self._newest = dict[str, Trial]()
        self._open: Callable[[], MlflowStore] = lambda: MlflowStore(
            experiment, model, record, self._missed, warn
        )
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)

    @property
    def missing(self) -> list[str] | None:
        """A line for each reason why MLflow did not take something; None if this process does not lead."""
        return self._missed.lines if self._leads else None

    def lead(self, finished: FrozenPrompt | None = None) -> None:
        """Start writing, beginning with earlier events.

        Args:
            finished: Frozen prompt of a finished study; nothing is written if MLflow's file has all of it.
        """
        if not self._leads:
            self._leads = True
            if finished is None or not is_written(contents_of(frozen_text(finished))):
                self._thread.start()

    def trial(self, trial: Trial) -> None:
        """Write a trial that has ended a rung; its run is skipped if a later rung has ended by then."""
        self._newest[trial.name] = trial

        def write(store: MlflowStore) -> None:
            store.trial(trial, newest=self._newest[trial.name] is trial)

        self._tell(f"the run {trial.name}", write)

    def headroom(self, headroom: Headroom) -> None:
        """Write the result of the warm-up test."""
        self._tell("the warm-up test", lambda store: store.headroom(headroom))

    def proposals(self, number: int, proposals: Proposals) -> None:
        """Write a round of proposals."""
        self._tell(f"round {number} of proposals", lambda store: store.proposals(number, proposals))

    def verdict(self, verdict: Verdict) -> None:
        """Write the runs of confirmation and holdout."""
        self._tell("the runs of confirmation and holdout", lambda store: store.verdict(verdict))

    def frozen(self, frozen: FrozenPrompt) -> None:
        """Write the frozen prompt."""
        self._tell("the verdict", lambda store: store.frozen(frozen))

    def report(self, make: Callable[[], str]) -> None:
        """Make the report in the tracking thread, and write it."""
        self._tell("report.html", lambda store: self._report(store, make))

    async def finish(self, status: Status, timeout_s: float | None = None) -> None:
        """Wait until everything is written, and close the parent run; Ctrl-C or SIGTERM ends the wait."""
        timeout_s = timeout_s or (FILE_S if tracking_file() else SERVER_S)
        if not self._end(status, timeout_s):
            return
        began_s, announced = time.monotonic(), False
        try:
            while self._thread.is_alive() and (waited_s := time.monotonic() - began_s) < timeout_s:
                if waited_s > SILENT_S and not announced:
                    announced = True
                    self._warn(f"Waiting up to {timeout_s:g} s for MLflow; Ctrl-C ends the wait.")
                await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            if task := asyncio.current_task():
                task.uncancel()
        self._count_left()

    def close(self, status: Status) -> None:
        """As `finish`, but blocking; after `FLUSH_S` the rest is written when the study resumes."""
        if self._end(status, FLUSH_S):
            with suppress(KeyboardInterrupt):
                self._thread.join(FLUSH_S)
            self._count_left()

    def _end(self, status: Status, timeout_s: float) -> bool:
        """Queue the end; returns whether there is anything to wait for."""
        if not self._has_jobs or self._thread.ident is None:  # it was never started
            return False
        self._jobs.put(_Job("the study's end", lambda store: store.end(status), last=True))
        self._jobs.put(None)
        self._until = time.monotonic() + 0.8 * timeout_s  # the rest is for the last job
        self._ending.set()
        return True

    def _count_left(self) -> None:
        """Count unwritten items as missing."""
        waiting = [self._at] if self._thread.is_alive() else []
        with suppress(queue.Empty):
            while True:
                waiting.append(self._jobs.get_nowait())
        for job in waiting:
            if job is not None and not self._missed.whole:
                self._missed.add(job.what, LATE)

    def _report(self, store: MlflowStore, make: Callable[[], str]) -> None:
        if store.complete:
            return
        try:
            page = make()
        except Exception as error:  # a failed report must not affect anything else
            self._warn(f"The report for MLflow could not be made: {type(error).__name__}: {error}")
        else:
            store.report(page)

    def _tell(self, what: str, write: Callable[[MlflowStore], None]) -> None:
        self._has_jobs = True
        self._jobs.put(_Job(what, write))

    def _run(self) -> None:
        # Opening imports MLflow; before the first event it would delay the study's own imports.
        self._at = self._jobs.get()
        store = self._opened()
        gc.freeze()  # as in `lab.study.study`: MLflow doubles the number of imported objects
        while store is not None and self._at is not None:
            began_s, before_s = time.monotonic(), time.thread_time()
            if not self._write(store, self._at):
                break
            self.urls = store.urls
            took_s, computed_s = time.monotonic() - began_s, time.thread_time() - before_s
            self._ending.wait(max(computed_s / SHARE - took_s, 0.0))
            self._at = self._jobs.get()

    def _opened(self) -> MlflowStore | None:
        """The store; None if it cannot be opened before the study ends."""
        while True:
            try:
                store = self._open()
            except Exception as error:  # whatever MLflow raises, the study must continue
                self._missed.add(STUDY, error)
                if self._ending.wait(AGAIN_S):
                    return None
            else:
                self._missed.took(STUDY)
                return store

    def _write(self, store: MlflowStore, job: _Job) -> bool:
        """Write a job; returns whether the next one can be written."""
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
