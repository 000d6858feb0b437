"""A Study: the main job, from an experiment to a verdict: search, play the holdout, judge.

It opens and closes what the job needs and owns the seeds; each part's own work is in its own module.
"""

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lab.candidate import Candidate
from lab.environment import open_environment
from lab.errors import BudgetError
from lab.evaluation import Evaluation
from lab.experiment import Experiment
from lab.opening import OpeningModel, open_endpoint
from lab.outcome import Outcome
from lab.player import Player
from lab.progress import ProgressView
from lab.search import Search, Trial
from lab.settings import choose_environment
from lab.tracking import Tracker
from lab.verdict import Verdict, judge

if TYPE_CHECKING:
    import optuna

STATE = Path(".lab")
HOLDOUT = 1_000_000
"""How far the holdout's seeds lie from the search's, which never reach there."""


class Study:
    """One run of an experiment."""

    def __init__(self, experiment: Experiment, view: ProgressView) -> None:
        self.name = f"{experiment.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
        self.interrupted = False
        self._experiment, self._view = experiment, view
        self._searching: asyncio.Task[None] | None = None

    def interrupt(self) -> bool:
        """End the search early, to go on with what has finished; False where no search is running."""
        if self._searching is None or self._searching.done() or self.interrupted:
            return False
        self.interrupted = True
        self._searching.cancel()
        return True

    async def run(self, opening: OpeningModel, tracker: Tracker) -> Outcome:
        """Search, and judge the best of it.

        Raises:
            LabError: endpoint, environment or disk failed, or nothing finished that could be judged.
        """
        where = choose_environment(self._experiment.task.environment)
        optuna_study = await asyncio.to_thread(self._create_study)
        async with open_environment(where) as environment, open_endpoint(opening) as endpoint:
            started = time.monotonic()
            player = Player(endpoint, environment, self._experiment.task, self._experiment.search.in_flight)
            finalists = await self._search(optuna_study, player, tracker)
            verdict = await self._judge(player, finalists)
            tracker.verdict(verdict)
            minutes = (time.monotonic() - started) / 60
            return Outcome(self._experiment, opening.model, self.name, verdict, player.tally, minutes)

    async def _search(self, study: "optuna.Study", player: Player, tracker: Tracker) -> list[Trial]:
        budget, baseline = self._experiment.search, self._experiment.baseline

        def on_trial(trial: Trial) -> None:
            self._view.trial(trial)
            tracker.trial(trial)

        seeds = range(self._experiment.seed, self._experiment.seed + budget.episodes)
        search = Search(study, self._experiment.space, player, seeds, on_trial)
        with self._view.phase("search", budget.trials + 1, player.tally):
            self._searching = asyncio.create_task(search.run(baseline, budget.trials, budget.minutes))
            try:
                await self._searching
            except asyncio.CancelledError:
                this = asyncio.current_task()
                if not self.interrupted or (this and this.cancelling()):  # not the search alone is to end
                    raise
        finalists = search.best(self._experiment.verdict.finalists, but=[baseline])
        if not finalists:
            raise BudgetError(
                "The search ended before any trial did, so there is nothing to judge.",
                where="search.minutes, search.trials",
                do="give it more minutes, or fewer episodes a trial",
            )
        return finalists

    async def _judge(self, player: Player, finalists: list[Trial]) -> Verdict:
        table, first = self._experiment.verdict, self._experiment.seed + HOLDOUT
        seeds = range(first, first + table.episodes)
        candidates = [self._experiment.baseline, *(trial.candidate for trial in finalists)]
        with self._view.phase("holdout", len(candidates), player.tally):
            baseline, *holdouts = await asyncio.gather(
                *(self._holdout(player, candidate, seeds) for candidate in candidates)
            )
        if not baseline.episodes:
            raise baseline.failed[0].error
        return judge(baseline, list(zip(finalists, holdouts, strict=True)), table.confidence)

    async def _holdout(self, player: Player, candidate: Candidate, seeds: range) -> Evaluation:
        evaluation = await player.evaluate(candidate, seeds)
        self._view.advance()
        return evaluation

    def _create_study(self) -> "optuna.Study":
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        STATE.mkdir(exist_ok=True)
        return optuna.create_study(
            storage=f"sqlite:///{STATE}/optuna.db",
            study_name=self.name,
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=self._experiment.seed),
        )
