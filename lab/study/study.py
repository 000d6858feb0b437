"""A Study: from an experiment to a verdict: search, confirm, play the holdout, judge.

It opens and closes the parts; each phase's work is in its own module. If the budget ends before a verdict,
the study ends with the best of its search, and resumes when the limit is raised. Several workers on one
storage all run it, and share the episodes; what they agree on is `lab.study.workers`'.
"""

import asyncio
import gc
from dataclasses import asdict
from datetime import UTC, datetime

from lab.agent.evaluation import Evaluation, Trial
from lab.display.progress import ProgressView, Watched
from lab.display.race_table import Playing
from lab.display.screen import Progress
from lab.errors import BudgetError, LabError
from lab.experiment.experiment import Experiment
from lab.llm.dialect import Dialect, changed
from lab.llm.launch import OpeningModel
from lab.llm.settings import ModelChoice
from lab.proposers.proposal import Proposals
from lab.proposers.proposer import Proposer
from lab.proposers.rounds import Rounds
from lab.search.first_answers import FirstAnswers
from lab.search.headroom import NOT_MADE, Headroom
from lab.search.loop import Search
from lab.search.player import Player
from lab.search.trials import numbers_of
from lab.stats.format import count
from lab.storage.record import Record
from lab.storage.study_trials import StudyTrials
from lab.study.parts import Parts, PartsOf
from lab.study.past_study import PastStudy, read_study
from lab.study.state import as_learnt, spending_of
from lab.study.unseen import Unseen
from lab.study.workers import Workers
from lab.tracking.tracker import Tracker
from lab.verdict.outcome import Judged, Unvalidated
from lab.verdict.words import claim

EARLY = 0.02
"""Share of the search below which its rate says too little about the time left."""


class Study:
    """One run of an experiment.

    Args:
        record: Its calls and episodes, which are not repeated.
        trials: Its trials in Optuna's storage.
    """

    def __init__(
        self,
        experiment: Experiment,
        model: ModelChoice,
        record: Record,
        trials: StudyTrials,
        view: ProgressView,
        tracker: Tracker,
    ) -> None:
        self.experiment, self.model = as_learnt(experiment, model, trials)
        self._record, self._trials, self._view, self._tracker = record, trials, view, tracker
        self._workers = Workers(record, trials.search, tracker.lead)
        self.interrupted = False
        self._searching: asyncio.Task[None] | None = None
        self._search: Search | None = None
        self.spending = spending_of(experiment, model, record, trials)

    def interrupt(self) -> bool:
        """End the search early, to continue with its best.

        Returns:
            False if no search is running, or it has nothing to judge yet.
        """
        search, searching = self._search, self._searching
        if search is None or searching is None or searching.done() or self.interrupted or not search.best(1):
            return False
        self.interrupted = True
        searching.cancel()
        return True

    async def run(self, opening: OpeningModel | None) -> PastStudy | Unvalidated:
        """Search, and judge the best candidates; recorded episodes are not repeated.

        Args:
            opening: The model; None if the budget allows no calls.

        Raises:
            LabError: Endpoint, environment or disk failed, or the budget ended before a candidate had played.
        """
        known = (self.experiment, self.model, self._record, self.spending)
        parts_of = PartsOf(*known, self._on_failure, self._on_dialect, self._view.say)
        async with parts_of.opened(opening) as parts:
            if not self._record.store.shared:
                self._workers.lead()
            gc.freeze()  # else each full collection walks all imported objects, which blocks for 0.1 s
            player = self._player(parts)
            search = self._search = Search(
                self.experiment,
                player,
                self._rounds(parts.proposer),
                self._on_trial,
                self._on_headroom,
                self._record,
                self._trials.search,
            )
            self._leave_out()
            unseen = Unseen(self.experiment, player, self._record, self._trials, self._announce)
            with self._view.watching(self._watched(search, unseen, player)):
                return await self._outcome(search, unseen, player)

    def _player(self, parts: Parts) -> Player:
        one, record = self.experiment, self._record
        return Player(
            parts.model,
            parts.environment,
            one.task,
            one.search.in_flight,
            self.spending,
            record,
            one.baseline,
            self._view.say,
            FirstAnswers(record, self._trials.search, self.model, one.environment, self._view.say),
            parts.others,
        )

    def _watched(self, search: Search, unseen: Unseen, player: Player) -> Watched:
        """What the live screen shows."""

        def playing() -> list[Playing]:
            numbers, most = numbers_of(self._trials.search.known), self.experiment.task.max_steps
            return [
                Playing(numbers[one.candidate.digest], one.candidate, one.steps, most)
                for one in player.playing
                if one.candidate.digest in numbers
            ]

        def phases() -> list[Progress]:
            share = min(search.progress, 1.0)
            left = player.spending.minutes * (1 / share - 1) if share >= EARLY else None
            return [Progress("search", share, left), *unseen.progress()]

        title = f"{self._record.name} on {self.experiment.models_text(self.model)}"
        return Watched(title, player.spending, search.trials, playing, phases)

    def _rounds(self, proposer: Proposer | None) -> Rounds | None:
        """The rounds of new texts and demonstrations; None if the experiment has neither."""
        if self.experiment.proposals is None and "demonstrations" not in self.experiment.space.free:
            return None
        return Rounds(
            self.experiment, self._trials.search, self._record, proposer, self._on_proposals, self._view.say
        )

    async def _outcome(self, search: Search, unseen: Unseen, player: Player) -> PastStudy | Unvalidated:
        try:
            async with asyncio.TaskGroup() as group:
                beating = group.create_task(self._workers.beat(search, unseen, player))
                is_judged = await self._judge(search, unseen)
                await search.at_rest()
                beating.cancel()
        finally:
            for phase in unseen.phases.values():
                phase.leave()
        stopped_by = search.stopped_by or player.stopped_by
        if not is_judged:
            return self._unvalidated(search, stopped_by)
        limit = stopped_by.where if stopped_by else ""
        with self._record.store.exclusively():  # one of several workers sets it
            if self._trials.search.fact("judged") is None:
                judged = Judged(self.spending.minutes, _now(), limit)
                self._trials.search.state_fact("judged", asdict(judged))
        self._trials.read()
        self._record.refresh()
        known = (self.experiment, self.model, self._record, self._trials, self._tracker)
        past = read_study(*known, self.spending)
        outcome = past.finished()
        self._tracker.verdict(outcome.verdict)
        self._trials.search.state_fact("verdict", claim(outcome.frozen_prompt()))
        if outcome.verdict.winner is not None:  # a later verdict confirms it again
            self._trials.search.state_fact("winner", outcome.verdict.winner.trial.number)
        await self._workers.passed_on()
        return past

    async def _judge(self, search: Search, unseen: Unseen) -> bool:
        """Search, confirm the best, play the holdout; the baseline starts on it as the search runs out.

        Returns:
            False if too little of the holdout was played to judge.
        """
        async with asyncio.TaskGroup() as group:
            baseline = group.create_task(self._baseline(search, unseen))
            await self._run(search)
            best = search.best(self.experiment.confirmation.candidates)
            if not best:
                raise search.stopped_by or self._nothing_to_judge()
            if search.stopped_by is not None and self._trials.search.fact("searched") is None:
                baseline.cancel()
                return False  # the search resumes once the limit is raised
            best = self._workers.agreed("contenders", best, search)
            confirmed = await unseen.confirmed(best)
            last = self._workers.agreed("finalists", unseen.finalists(best, confirmed), search)
            return await unseen.verdict(last, confirmed, baseline) is not None

    def _nothing_to_judge(self) -> BudgetError:
        most, each = self.experiment.verdict_calls, self.spending.tokens / max(self.spending.calls, 1)
        reserved = f"up to {most:,} calls are reserved for the verdict, at {each:,.0f} tokens each so far"
        return BudgetError(
            "The search ended before any candidate had played a whole episode.",
            where="budget, or candidates that failed",
            why=f"left: {self.spending.left}; {reserved}",
            do="raise the budget, and run the same command to resume; see python -m lab.report",
        )

    async def _run(self, search: Search) -> None:
        self._searching = asyncio.create_task(search.run())
        try:
            await self._searching
        except asyncio.CancelledError:
            this = asyncio.current_task()
            if not self.interrupted or (this and this.cancelling()):  # more than the search was cancelled
                raise
        if search.stopped_by is None and search.best(1):  # else it resumes once the limit is raised
            search.end()
            if self.experiment.search.sampler == "race" and self._trials.search.fact("headroom") is None:
                self._view.say(NOT_MADE)

    async def _baseline(self, search: Search, unseen: Unseen) -> Evaluation:
        """Play the baseline on the holdout once the search starts no more episodes."""
        await search.full.wait()
        if self.spending.time_is_up:
            more, limit = self.spending.minutes_for(unseen.calls_left()), self.spending.budget.minutes
            about = f"the verdict will take about {count(max(round(more), 1), 'more minute')}"
            self._view.say(f"The search's {limit:g} minutes are over; {about}.")
        return await unseen.baseline(search.best(self.experiment.confirmation.candidates))

    def _unvalidated(self, search: Search, stopped_by: LabError | None) -> Unvalidated:
        """The result without a verdict."""
        self.spending.recount()
        return Unvalidated(
            self.experiment,
            self.model,
            self._record.name,
            tuple(search.trials()),
            self.spending,
            Judged(self.spending.minutes, _now()),
            stopped_by or LabError("Baseline and finalist have fewer than two holdout seeds in common."),
        )

    def _announce(self, phase: str, text: str) -> None:
        self._view.phase(phase)
        if self._search is not None and self._search.stopped_by is None:
            self._view.say(text)

    def _on_trial(self, trial: Trial) -> None:
        self._view.trial(trial)
        self._tracker.trial(trial)

    def _on_failure(self, error: LabError, proposals: bool, model: str) -> None:
        self._record.keep_failure(error, proposals=proposals, model=model)
        self._view.failed(error)

    def _on_dialect(self, dialect: Dialect, why: str, name: str) -> None:
        facts = self._trials.search
        facts.state_fact("dialects", {**(facts.fact("dialects") or {}), name: dialect.as_table()})
        self.experiment, self.model = as_learnt(self.experiment, self.model, self._trials)
        self._view.say(f"{name}: {changed(dialect, why)}" if name else changed(dialect, why))
        self._leave_out()

    def _leave_out(self) -> None:
        """Leave out of the space what no model's endpoint accepts."""
        others = [one.choice.dialect.omit for one in self.experiment.others.values()]
        omitted = [name for name in self.model.dialect.omit if all(name in omit for omit in others)]
        if self._search and (said := self._search.leave_out(omitted)):
            self._view.say(said)

    def _on_headroom(self, headroom: Headroom) -> None:
        self._view.say(str(headroom))
        self._tracker.headroom(headroom)

    def _on_proposals(self, number: int, proposals: Proposals) -> None:
        self._view.say(f"Round {number} of proposals: {proposals}")
        self._tracker.proposals(number, proposals)


def _now() -> str:
    """The current time, ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
