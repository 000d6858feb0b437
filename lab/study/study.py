"""A Study: the main job, from an experiment to a verdict: search, confirm, play the holdout, judge.

It opens and closes what the job needs and owns the seeds; each part's own work is in its own module. A study
whose record holds the verdict is told again, and nothing is opened for it. Where the budget ends before there
is a verdict, the study ends with the best of its search, and resumes when the limit is raised. Several
workers on one record run it all, and each plays what no other does.
"""

import asyncio
import gc
from contextlib import nullcontext
from datetime import UTC, datetime

from lab.agent.evaluation import Evaluation, Trial
from lab.display.progress import ProgressView, Watched
from lab.environments.environment import Environment
from lab.errors import BudgetError, LabError
from lab.experiment.budget import Spending
from lab.experiment.experiment import Experiment
from lab.llm.client import Model
from lab.llm.launch import OpeningModel
from lab.llm.settings import ModelChoice, shown_proposer
from lab.proposers.proposal import Proposals
from lab.proposers.proposer import Proposer
from lab.proposers.rounds import Renewal
from lab.search.first_answers import FirstAnswers
from lab.search.headroom import Headroom
from lab.search.loop import Search
from lab.search.player import Player
from lab.storage.call_cache import Nothing
from lab.storage.journal import Judged, Kept, Opened
from lab.storage.optuna_trials import keep_trials
from lab.storage.record import Record
from lab.storage.workers import working
from lab.study.parts import PartsOf
from lab.study.unseen import Unseen
from lab.tracking.tracker import Tracker
from lab.verdict.outcome import Outcome
from lab.verdict.unvalidated import Unvalidated
from lab.verdict.verdict import Verdict


class Study:
    """One run of an experiment.

    Args:
        record: where it goes on, and what it is kept in.
        shared: other workers may be at it.
        proposer: the model that proposes texts, where it is another one; None for what the environment says.
    """

    def __init__(
        self,
        experiment: Experiment,
        model: ModelChoice,
        record: Record,
        view: ProgressView,
        tracker: Tracker,
        *,
        shared: bool = False,
        proposer: str | None = None,
    ) -> None:
        self._proposer = shown_proposer() if proposer is None else proposer
        self.interrupted, self._shared = False, shared
        self.experiment, self.model, self._record = experiment, model, record
        self._prices = experiment.prices_of(model)
        self._view, self._tracker = view, tracker
        self._leads, self._trials_kept = False, False
        self._headroom: Headroom | None = None
        self._searching: asyncio.Task[None] | None = None
        self._current: Search | None = None
        self.spending = self._spending()

    def interrupt(self) -> bool:
        """End the search early, to continue with its best.

        Returns:
            False where no search is running, or nothing has ended in it that could be judged.
        """
        search, searching = self._current, self._searching
        if search is None or searching is None or searching.done() or self.interrupted or not search.best(1):
            return False
        self.interrupted = True
        searching.cancel()
        return True

    async def run(self, opening: OpeningModel | None) -> Outcome | Unvalidated:
        """Search, and judge the best of it; what the record holds is not done again.

        Args:
            opening: the model; None where the budget allows no call.

        Raises:
            LabError: endpoint, environment or disk failed, or the budget ended before a candidate had played.
        """
        known = (self.experiment, self.model, self._record, self.spending)
        parts_of = PartsOf(*known, self._on_failure, self._view.say)
        async with (
            parts_of.opened(opening) as parts,
            working(self._record, self.spending.recount, self._lead, alone=not self._shared),
        ):
            self._record.append(Opened(alone=len(self._record.alive) == 1))
            gc.freeze()  # what was imported stays: each full collection walked it, 0.1 s without a call
            return await self._outcome(parts.model, parts.environment, self._renewal(parts.proposer))

    async def replay(self) -> Outcome:
        """Tell what the record holds, to the same verdict; nothing is asked, played or written.

        Raises:
            NothingRecordedError: the study was not finished.
        """
        self._record.seal()
        nothing = Nothing(self._record.ends_here)
        outcome = await self._outcome(nothing, nothing, self._renewal(None))
        if isinstance(outcome, Unvalidated):
            raise self._record.ends_here()
        return outcome

    def so_far(self) -> list[Trial]:
        """The trials that the record holds, best first; nothing is asked, played or written."""
        self._record.seal()
        nothing = Nothing(self._record.ends_here)
        search = self._new_search(self._player(nothing, nothing), self._renewal(None))
        search.catch_up()
        return search.trials

    def _player(self, model: Model, environment: Environment) -> Player:
        one, record = self.experiment, self._record
        return Player(
            model,
            environment,
            one.task,
            one.search.in_flight,
            self.spending,
            record,
            one.baseline,
            self._view.say,
            FirstAnswers(record, self.model, one.environment),
            one.objective.maximise,
        )

    def _new_search(self, player: Player, renewal: Renewal | None) -> Search:
        return Search(self.experiment, player, renewal, self._on_trial, self._on_headroom, self._record)

    def _renewal(self, proposer: Proposer | None) -> Renewal | None:
        """Brings new texts and demonstrations; without a proposer, the texts on record."""
        if self.experiment.proposals is None and "demonstrations" not in self.experiment.space.free:
            return None
        return Renewal(self.experiment, self._record, proposer, self._on_proposals, self._view.say)

    async def _outcome(
        self, model: Model, environment: Environment, renewal: Renewal | None
    ) -> Outcome | Unvalidated:
        record, spending = self._record, self.spending
        player = self._player(model, environment)
        search = self._current = self._new_search(player, renewal)
        title = f"{record.name} on {self.model.name} at {self.model.shown}"
        watched = Watched(title, spending, lambda: search.trials, self.experiment.search.episodes)
        with nullcontext() if record.sealed else self._view.watching(watched):
            verdict = await self._verdict(search, player)
        if verdict is None:
            return self._unvalidated(search, search.stopped_by or player.stopped_by)
        self._tracker.verdict(verdict)
        limit = player.stopped_by.where if player.stopped_by else ""
        while (judged := record.judged) is None:  # of several workers, one gives it
            record.propose(Judged(spending.minutes, _now(), limit))
        spending.recount()
        if not record.sealed:
            await self._passed_on(search)
        trials = tuple(search.trials)
        return Outcome(
            self.experiment,
            self.model,
            record.name,
            self._headroom,
            trials,
            verdict,
            spending,
            record.failures(),
            judged,
            record.troubles,
        )

    def _unvalidated(self, search: Search, stopped_by: LabError | None) -> Unvalidated:
        """What there is to say where no verdict can be given."""
        self.spending.recount()
        return Unvalidated(
            self.experiment,
            self.model,
            self._record.name,
            tuple(search.trials),
            self.spending,
            stopped_by or LabError("Fewer than two seeds of the holdout ended for baseline and finalist."),
            self.spending.minutes,
            _now(),
        )

    def _spending(self) -> Spending:
        """What may be spent, less what was spent before."""
        spending = Spending(self.experiment.budget, earlier_minutes=self._record.earlier_minutes)
        spending.recount = lambda: self._count_others(spending)
        spending.recount()
        return spending

    def _count_others(self, spending: Spending) -> None:
        """Count what other processes have spent, before this one or beside it."""
        experiment, record = self.experiment, self._record
        other = experiment.proposals if self._proposer else None
        theirs = other.prices if other else self._prices
        played = record.spent_elsewhere(self._prices, proposals=False)
        proposed = record.spent_elsewhere(theirs, proposals=True)
        spending.count_others(played + proposed)
        spending.episodes = record.episodes

    def _lead(self) -> None:
        self._leads = True
        self._tracker.lead()

    async def _verdict(self, search: Search, player: Player) -> Verdict | None:
        """Search, confirm the best, play the holdout; the baseline plays its part while the search runs out.

        Returns:
            None where too little of the holdout was played to judge.
        """

        def announce(phase: str, text: str) -> None:
            self._view.phase(phase)
            if search.stopped_by is None:
                self._view.say(text)

        unseen = Unseen(self.experiment, player, announce)
        async with asyncio.TaskGroup() as group:
            baseline = group.create_task(self._baseline(search, unseen))
            await self._search(search)
            best = search.best(self.experiment.confirmation.candidates)
            if not best:
                raise search.stopped_by or BudgetError(
                    "The search ended before any candidate had played a whole episode.",
                    where="budget, or candidates that failed",
                    do="raise the budget, and run the same command to resume; see python -m lab.report",
                )
            return await unseen.verdict(best, await unseen.confirmed(best), baseline)

    async def _search(self, search: Search) -> None:
        self._searching = asyncio.create_task(search.run())
        try:
            await self._searching
        except asyncio.CancelledError:
            this = asyncio.current_task()
            if not self.interrupted or (this and this.cancelling()):  # not the search alone is to end
                raise
        finally:
            search.catch_up()  # with episodes that ended in the very moment in which the search did
            if search.trials and self._leads:
                self._keep_trials(search)
        if search.stopped_by is None:
            search.end()

    def _keep_trials(self, search: Search) -> None:
        url, objective = self._record.store.trials_url, self.experiment.objective
        with self._record.store.exclusively():
            keep_trials(url, self._record.name, search.space, objective, search.trials)
        self._trials_kept = True

    async def _passed_on(self, search: Search) -> None:
        """Return once a worker that leads has the outcome: this one, where the one before has died."""
        while Kept() not in self._record.events:
            if not self._leads:
                await self._record.changed()
                continue
            if not self._trials_kept:
                self._keep_trials(search)
            self._record.append(Kept())

    async def _baseline(self, search: Search, unseen: Unseen) -> Evaluation:
        """The baseline on the holdout, from when the search begins nothing more."""
        await search.all_begun.wait()
        if self.spending.time_is_up and not self._record.sealed:
            left = unseen.calls_left([seed for _, seed in self._record.ended])
            more, limit = self.spending.minutes_for(left), self.spending.budget.minutes
            about = f"the verdict will take about {max(more, 1):.0f} more"
            self._view.say(f"The search's {limit:g} minutes are over; {about}.")
        return await unseen.baseline()

    def _on_trial(self, trial: Trial) -> None:
        self._view.trial(trial)
        self._tracker.trial(trial)

    def _on_failure(self, error: LabError, proposals: bool) -> None:
        self._record.keep_failure(error, proposals=proposals)
        self._view.failed(error)

    def _on_headroom(self, headroom: Headroom) -> None:
        self._headroom = headroom
        self._view.phase("search")
        self._view.say(str(headroom))
        self._tracker.headroom(headroom)

    def _on_proposals(self, number: int, proposals: Proposals) -> None:
        names = ", ".join(text.name for text in proposals.accepted) or "none"
        refused = f"{len(proposals.refused)} refused, {proposals.duplicates} known already"
        self._view.say(f"Round {number} of proposals: {names} join the race; {refused}.")
        self._tracker.proposals(number, proposals)


def _now() -> str:
    """ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
