"""A Study: the main job, from an experiment to a verdict: search, confirm, play the holdout, judge.

It opens and closes what the job needs and owns the seeds; each part's own work is in its own module. A study
whose record holds the verdict is told again, and nothing is opened for it. Several workers on one record run
it all, and each plays what no other does.
"""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from datetime import UTC, datetime

from lab.endpoint import Endpoint, Model
from lab.environment import Environment, open_environment
from lab.errors import BudgetError, LabError
from lab.evaluation import Evaluation
from lab.experiment import Experiment
from lab.headroom import Headroom
from lab.journal import Judged, Kept, Opened
from lab.opening import OpeningModel, open_endpoint
from lab.optuna_store import keep_trials
from lab.outcome import Outcome
from lab.player import Player
from lab.progress import ProgressView, Watched
from lab.proposal import Proposals
from lab.proposers import Proposer, make_proposer
from lab.record import PROPOSALS, Record
from lab.recorded import Nothing, Recorded
from lab.renewal import Renewal
from lab.search import Search
from lab.settings import ModelChoice, choose_environment, proposer_endpoint, shown_proposer
from lab.spending import Metered, Spending
from lab.tracking import Tracker
from lab.trial import Trial
from lab.verdict import Verdict, confirm, finalists, judge
from lab.workers import working

CONFIRMATION, HOLDOUT, COMPARISON = 500_000, 1_000_000, 1_500_000
"""How far the seeds of confirmation, holdout and `lab.compare` lie from the search's, which end before."""


class Study:
    """One run of an experiment.

    Args:
        record: where it goes on, and what it is kept in.
        shared: other workers may be at it.
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
    ) -> None:
        self.interrupted, self._shared = False, shared
        self._experiment, self._model, self._record = experiment, model, record
        self._prices = experiment.prices_of(model)
        self._view, self._tracker = view, tracker
        self._leads, self._trials_kept = False, False
        self._headroom: Headroom | None = None
        self._searching: asyncio.Task[None] | None = None

    def interrupt(self) -> bool:
        """End the search early, to go on with what has finished; False where no search is running."""
        if self._searching is None or self._searching.done() or self.interrupted:
            return False
        self.interrupted = True
        self._searching.cancel()
        return True

    async def run(self, opening: OpeningModel) -> Outcome:
        """Search, and judge the best of it; what the record holds is not done again.

        Raises:
            LabError: endpoint, environment or disk failed, the budget ended it before a verdict, or nothing
                finished that could be judged.
        """
        experiment = self._experiment
        where = choose_environment(experiment.environment)
        async with (
            open_environment(where, experiment.root) as environment,
            open_endpoint(opening, experiment.patience) as endpoint,
        ):
            endpoint.throttle.on_failure = self._on_failure
            spending = self._spending()
            model = Metered(endpoint, spending, self._prices)
            async with (
                working(self._record, spending.recount, self._lead, alone=not self._shared),
                self._renewal(endpoint, model, spending) as renewal,
            ):
                self._record.append(Opened(alone=len(self._record.alive) == 1))
                gc.freeze()  # what was imported stays: each full collection walked it, 0.1 s without a call
                return await self._outcome(model, environment, renewal, spending)

    async def replay(self) -> Outcome:
        """Tell what the record holds, to the same verdict; nothing is asked, played or written.

        Raises:
            NothingRecordedError: the study was not finished.
        """
        self._record.seal()
        nothing = Nothing(self._record)
        return await self._outcome(nothing, nothing, self._no_renewal(), self._spending())

    def so_far(self) -> list[Trial]:
        """The trials that the record holds, best first; nothing is asked, played or written."""
        self._record.seal()
        nothing = Nothing(self._record)
        search = self._new_search(self._player(nothing, nothing, self._spending()), self._no_renewal())
        search.catch_up()
        return search.trials

    def _player(self, model: Model, environment: Environment, spending: Spending) -> Player:
        in_flight = self._experiment.search.in_flight
        player = Player(model, environment, self._experiment.task, in_flight, spending, self._record)
        player.on_large = self._on_large
        return player

    def _new_search(self, player: Player, renewal: Renewal | None) -> Search:
        return Search(self._experiment, player, renewal, self._on_trial, self._on_headroom, self._record)

    def _no_renewal(self) -> Renewal | None:
        """Where new texts and demonstrations are only read: nobody proposes any."""
        wanted = self._experiment.proposals is not None or "demonstrations" in self._experiment.space.free
        return self._renewal_by(None) if wanted else None

    def _renewal_by(self, proposer: Proposer | None) -> Renewal:
        return Renewal(self._experiment, self._record, proposer, self._on_proposals, self._view.say)

    async def _outcome(
        self, model: Model, environment: Environment, renewal: Renewal | None, spending: Spending
    ) -> Outcome:
        experiment, record = self._experiment, self._record
        player = self._player(model, environment, spending)
        search = self._new_search(player, renewal)
        title = f"{record.name} on {self._model.name} at {self._model.shown}"
        watched = Watched(title, spending, lambda: search.trials, experiment.search.episodes)
        with nullcontext() if record.sealed else self._view.watching(watched):
            verdict = await self._verdict(search, player)
        self._tracker.verdict(verdict)
        while (judged := record.judged) is None:  # of several workers, one gives it
            record.propose(Judged(spending.minutes, datetime.now(UTC).isoformat(timespec="seconds")))
        spending.recount()
        if not record.sealed:
            await self._passed_on(search)
        return Outcome(
            experiment,
            self._model,
            record.name,
            self._headroom,
            tuple(search.trials),
            verdict,
            spending,
            record.failures(),
            judged,
        )

    def _spending(self) -> Spending:
        """What may be spent, less what was spent before."""
        spending = Spending(self._experiment.budget, earlier_minutes=self._record.earlier_minutes)
        spending.recount = lambda: self._count_others(spending)
        spending.recount()
        return spending

    def _count_others(self, spending: Spending) -> None:
        """Count what other processes have spent, before this one or beside it."""
        experiment, record = self._experiment, self._record
        other = experiment.proposals if shown_proposer() else None
        theirs = other.prices if other else self._prices
        played = record.spent_elsewhere(self._prices, proposals=False)
        proposed = record.spent_elsewhere(theirs, proposals=True)
        spending.count_others(played + proposed)
        spending.episodes = record.episodes

    def _lead(self) -> None:
        self._leads = True
        self._tracker.lead()

    async def _verdict(self, search: Search, player: Player) -> Verdict:
        """Each phase's seeds are its own; the baseline plays its part while the search runs out."""
        table, objective = self._experiment.verdict, self._experiment.objective
        async with asyncio.TaskGroup() as group:
            baseline = group.create_task(self._baseline(search, player))
            await self._search(search)
            best = search.best(self._experiment.confirmation.candidates)
            if not best:
                raise BudgetError(
                    "The search ended before any trial did, so there is nothing to judge.",
                    where="budget",
                    do="raise it, or let confirmation and verdict play fewer episodes",
                )
            self._view.phase("confirmation")
            self._view.say(f"Confirming {', '.join(trial.name for trial in best)} on seeds of their own.")
            confirmed = confirm(await self._play(player, best, self._confirmation_seeds), table.confidence)
            last = finalists(confirmed, objective, table.finalists, table.judge)
            self._view.phase("holdout")
            self._view.say(f"Playing the sealed holdout with {', '.join(trial.name for trial in last)}.")
            held_out = await self._play(player, last, self._holdout_seeds)
        return judge(confirmed, baseline.result(), held_out, objective, table.confidence, table.judge)

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
        search.end()

    def _keep_trials(self, search: Search) -> None:
        url, objective = self._record.store.trials_url, self._experiment.objective
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

    async def _baseline(self, search: Search, player: Player) -> Evaluation:
        """The baseline on the holdout, from when the search begins nothing more."""
        await search.all_begun.wait()
        evaluation = await player.evaluate(self._experiment.baseline, self._holdout_seeds)
        if not evaluation.episodes:
            raise evaluation.failed[0].error
        return evaluation

    async def _play(
        self, player: Player, trials: list[Trial], seeds: range
    ) -> list[tuple[Trial, Evaluation]]:
        async with asyncio.TaskGroup() as group:
            playing = [group.create_task(player.evaluate(trial.candidate, seeds)) for trial in trials]
        return [(trial, task.result()) for trial, task in zip(trials, playing, strict=True)]

    @property
    def _confirmation_seeds(self) -> range:
        first = self._experiment.seed + CONFIRMATION
        return range(first, first + self._experiment.confirmation.episodes)

    @property
    def _holdout_seeds(self) -> range:
        first = self._experiment.seed + HOLDOUT
        return range(first, first + self._experiment.verdict.episodes)

    @asynccontextmanager
    async def _renewal(
        self, endpoint: Endpoint, model: Model, spending: Spending
    ) -> AsyncIterator[Renewal | None]:
        """What brings new texts and demonstrations, where the experiment asks for them."""
        experiment = self._experiment
        if experiment.proposals is None:
            yield self._no_renewal()
            return
        config = proposer_endpoint(endpoint.config)
        async with AsyncExitStack() as stack:
            if config != endpoint.config:
                other = await stack.enter_async_context(Endpoint(config))
                other.throttle.on_failure = self._on_failure
                model = Metered(other, spending, experiment.proposals.prices)
            proposer = make_proposer(experiment.proposals.proposer, Recorded(model, self._record, PROPOSALS))
            yield self._renewal_by(proposer)

    def _on_trial(self, trial: Trial) -> None:
        self._view.trial(trial)
        self._tracker.trial(trial)

    def _on_failure(self, error: LabError) -> None:
        self._record.keep_failure(error)
        self._view.failed(error)

    def _on_large(self, characters: int) -> None:
        told = f"An observation has {characters:,} characters, and is recorded whole"
        self._view.say(f"{told}; to cut it, set longest under [environment].")

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
