"""Unseen episodes: confirmation and holdout, played on seeds that the search never plays, and judged.

It owns these seeds and the order of the two phases. Where the budget has no room for all episodes, those that
were played are judged: the holdout takes precedence over the confirmation, and the baseline leaves each of
its episodes its pair. What the figures mean is `lab.verdict.verdict`'s.
"""

import asyncio
from collections.abc import Callable, Sequence

from lab.agent.evaluation import Evaluation, Trial
from lab.experiment.experiment import Experiment
from lab.search.player import Player
from lab.storage.record import CONFIRMATION, HOLDOUT
from lab.verdict.verdict import Confirmed, Verdict, confirm, finalists, judge

Announce = Callable[[str, str], None]
"""Takes a phase's name and a sentence about it."""


class Unseen:
    """The phases after the search, of one study.

    Args:
        announce: called as a phase begins.
    """

    def __init__(self, experiment: Experiment, player: Player, announce: Announce) -> None:
        self._experiment, self._player, self._announce = experiment, player, announce
        self._pair_calls = experiment.verdict.finalists * experiment.task.max_steps

    async def baseline(self) -> Evaluation:
        """The baseline on the holdout.

        Raises:
            LabError: all of its episodes failed.
        """
        seeds, each = self._seeds(HOLDOUT), self._pair_calls
        baseline = self._experiment.baseline
        self._player.retry(baseline, seeds)
        evaluation = await self._player.evaluate(baseline, seeds, lambda place: (place + 1) * each)
        if evaluation.failed and not evaluation.episodes:
            raise evaluation.failed[0].error
        return evaluation

    async def confirmed(self, best: Sequence[Trial]) -> tuple[Confirmed, ...]:
        """The search's best on fresh seeds."""
        self._announce("confirmation", f"Confirming {_names(best)} on fresh seeds.")
        holdout = self._experiment.verdict.episodes * self._pair_calls
        return confirm(await self._play(best, CONFIRMATION, holdout), self._experiment.verdict.confidence)

    async def verdict(
        self, best: Sequence[Trial], confirmed: tuple[Confirmed, ...], baseline: "asyncio.Task[Evaluation]"
    ) -> Verdict | None:
        """The best of the confirmed beside the baseline; of the search's `best` where none was confirmed.

        Returns:
            None where fewer than two seeds were played by the baseline and a finalist alike.
        """
        table, objective = self._experiment.verdict, self._experiment.objective
        last = finalists(confirmed, objective, table.finalists, table.judge) or best[: table.finalists]
        self._announce("holdout", f"Playing the sealed holdout with {_names(last)}.")
        held_out = await self._play(last, HOLDOUT, 0)
        verdict = judge(confirmed, await baseline, held_out, objective, table.confidence, table.judge)
        return verdict if verdict.finalists else None

    def calls_left(self, ended: Sequence[int]) -> int:
        """Calls that these phases still take at most.

        Args:
            ended: seeds of all the study's episodes that ended.
        """
        first = self._experiment.seed + CONFIRMATION
        done = sum(seed >= first for seed in ended) * self._experiment.task.max_steps
        return max(self._experiment.verdict_calls - done, 0)

    async def _play(
        self, trials: Sequence[Trial], phase: int, later_calls: int
    ) -> list[tuple[Trial, Evaluation]]:
        seeds = self._seeds(phase)
        async with asyncio.TaskGroup() as group:
            playing = [
                group.create_task(self._player.evaluate(trial.candidate, seeds, lambda _: later_calls))
                for trial in trials
            ]
        return [(trial, task.result()) for trial, task in zip(trials, playing, strict=True)]

    def _seeds(self, phase: int) -> range:
        experiment, first = self._experiment, self._experiment.seed + phase
        table = experiment.confirmation if phase == CONFIRMATION else experiment.verdict
        return range(first, first + table.episodes)


def _names(trials: Sequence[Trial]) -> str:
    return ", ".join(trial.name for trial in trials) or "no candidate"
