"""The search: ask Optuna for a candidate, play it, tell Optuna what it returned.

It owns the loop, and decides only when to ask: as late as possible, when an episode could begin at once.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.candidate import Candidate
from lab.evaluation import Evaluation
from lab.player import Player
from lab.space import Space

if TYPE_CHECKING:
    import optuna

BASELINE = -1
"""The baseline's trial number: it is played beside Optuna's trials."""


@dataclass(frozen=True)
class Trial:
    """A candidate and its episodes of the search; `number` is Optuna's, or BASELINE."""

    number: int
    evaluation: Evaluation

    @property
    def candidate(self) -> Candidate:
        """What was tried."""
        return self.evaluation.candidate

    @property
    def name(self) -> str:
        """For people, and for the run in MLflow."""
        return "baseline" if self.number == BASELINE else f"trial-{self.number:03d}"


OnTrial = Callable[[Trial], None]


class Search:
    """One search over `space`; `finished` holds what has ended, also when the search is cut short."""

    def __init__(
        self, study: "optuna.Study", space: Space, player: Player, seeds: Sequence[int], on_trial: OnTrial
    ) -> None:
        self.finished: list[Trial] = []
        self._study, self._space, self._player = study, space, player
        self._seeds, self._on_trial = seeds, on_trial

    async def run(self, baseline: Candidate, trials: int, minutes: float) -> None:
        """Play the baseline and up to `trials` candidates; none is begun after `minutes`.

        Cancelled, it leaves no trial half told: what was running is told as failed.

        Raises:
            LabError: endpoint or environment are not to be had.
        """
        ends = time.monotonic() + minutes * 60
        async with asyncio.TaskGroup() as group:
            group.create_task(self._play_baseline(self._player.evaluate(baseline, self._seeds)))
            for _ in range(trials):
                await self._player.room()
                if time.monotonic() > ends:
                    break
                trial = self._study.ask(self._space.distributions())
                playing = self._player.evaluate(self._space.candidate(trial.params), self._seeds)
                group.create_task(self._play_trial(trial, playing))

    def best(self, count: int, *, but: Iterable[Candidate] = ()) -> list[Trial]:
        """The `count` finished trials with the highest mean return, a candidate once, best first."""
        known = set(but)
        ranked = []
        for trial in sorted(self.finished, key=lambda trial: -trial.evaluation.mean_return):
            if trial.candidate not in known:
                known.add(trial.candidate)
                ranked.append(trial)
        return ranked[:count]

    async def _play_baseline(self, playing: Coroutine[None, None, Evaluation]) -> None:
        import optuna

        evaluation = await playing
        if evaluation.failed:
            raise evaluation.failed[0].error  # without a baseline there is nothing to compare with
        params = self._space.params(evaluation.candidate)
        if params is not None:
            told = optuna.trial.create_trial(
                params=params, distributions=self._space.distributions(), value=evaluation.mean_return
            )
            self._study.add_trial(told)
        self._finish(Trial(BASELINE, evaluation))

    async def _play_trial(self, trial: "optuna.Trial", playing: Coroutine[None, None, Evaluation]) -> None:
        from optuna.trial import TrialState

        try:
            evaluation = await playing
        except BaseException:
            self._study.tell(trial, state=TrialState.FAIL)
            raise
        if evaluation.failed:  # a candidate that can break its own calls is no candidate
            self._study.tell(trial, state=TrialState.FAIL)
            return
        self._study.tell(trial, evaluation.mean_return)
        self._finish(Trial(trial.number, evaluation))

    def _finish(self, trial: Trial) -> None:
        self.finished.append(trial)
        self._on_trial(trial)
