"""Unseen episodes: confirmation and holdout, played on seeds that the search never plays.

It owns the order of the two phases, and their shares of the budget: the holdout takes precedence over the
confirmation, and the baseline leaves room for the finalist's episode on each seed. Playing the episodes is
`lab.study.phase`'s; judging is `lab.verdict.verdict`'s.
"""

import asyncio
from collections.abc import Callable, Sequence
from math import ceil
from statistics import fmean

from lab.agent.episode import FailedEpisode, Tally
from lab.agent.evaluation import BASELINE, Evaluation, Trial
from lab.display.screen import Progress
from lab.experiment.budget import BASELINES, Calls
from lab.experiment.experiment import Experiment
from lab.search.player import Player
from lab.search.running import usual_calls
from lab.storage.keys import CONFIRMATION, HOLDOUT
from lab.storage.record import Record
from lab.storage.study_trials import StudyTrials
from lab.study.phase import Phase
from lab.verdict.verdict import ROUNDING, Confirmed, Verdict, confirm, finalists, judge


class Unseen:
    """The phases after the search, in one process.

    Args:
        announce: Called at the start of a phase with its name and a sentence about it.
    """

    def __init__(
        self,
        experiment: Experiment,
        player: Player,
        record: Record,
        trials: StudyTrials,
        announce: Callable[[str, str], None],
    ) -> None:
        self._experiment, self._player, self._record = experiment, player, record
        self._announce = announce
        known, table = (experiment, player, record), experiment.verdict
        most = experiment.confirmation.candidates
        self.confirmation = Phase(CONFIRMATION, most, *known, trials.confirmation)
        self.holdout = Phase(HOLDOUT, table.finalists + 1, *known, trials.holdout)
        self.phases = {"confirmation": self.confirmation, "holdout": self.holdout}

    async def baseline(self, best: Sequence[Trial]) -> Evaluation:
        """Play the baseline on the holdout.

        Args:
            best: The search's best candidates, of which some will be finalists.

        Raises:
            LabError: All of its episodes failed.
        """
        self._retry_baseline()
        baseline, seeds = self._experiment.baseline, self.holdout.seeds

        def later(seed: int) -> Calls:
            return self._later(best, seeds[: seeds.index(seed) + 1])

        await self.holdout.play({BASELINE: baseline}, later)
        evaluation = self.holdout.evaluation(baseline)
        if evaluation.failed and not evaluation.episodes:
            raise evaluation.failed[0].error
        return evaluation

    async def confirmed(self, best: Sequence[Trial]) -> tuple[Confirmed, ...]:
        """Play the search's best candidates on fresh seeds."""
        self.confirmation.candidates = len(best)
        self._announce("confirmation", f"Confirming {_names(best)} on fresh seeds.")
        played = await _played(
            best, self.confirmation, lambda _: self._later(best, self.holdout.seeds, self.holdout.seeds)
        )
        return confirm(played, self._experiment.verdict.confidence)

    def finalists(self, best: Sequence[Trial], confirmed: tuple[Confirmed, ...]) -> Sequence[Trial]:
        """The best confirmed candidates; the first of `best` if none was confirmed."""
        table, objective = self._experiment.verdict, self._experiment.objective
        return finalists(confirmed, objective, table.finalists, table.judge) or best[: table.finalists]

    async def verdict(
        self, last: Sequence[Trial], confirmed: tuple[Confirmed, ...], baseline: "asyncio.Task[Evaluation]"
    ) -> Verdict | None:
        """Play the finalists on the holdout, and judge them against the baseline.

        Returns:
            None if the baseline and a finalist have fewer than two seeds in common.
        """
        table, objective = self._experiment.verdict, self._experiment.objective
        self.holdout.candidates = len(last) + 1
        self._announce("holdout", f"Playing the sealed holdout with {_names(last)}.")
        played = await _played(last, self.holdout, lambda _: Calls())
        verdict = judge(confirmed, await baseline, played, objective, table.confidence, table.judge)
        return verdict if verdict.finalists else None

    def progress(self) -> list[Progress]:
        """Return how far both phases are."""
        spent, playing = self._player.spending, self._player.playing
        found = list[Progress]()
        for name, phase in self.phases.items():
            planned = phase.candidates * len(phase.seeds)
            ended = sum(seed in phase.seeds for _, seed in self._record.ended)
            steps = sum(one.steps for one in playing if one.seed in phase.seeds)
            played = ended + steps / self._experiment.task.max_steps
            left = spent.minutes / spent.episodes * max(planned - played, 0.0) if spent.episodes else None
            found.append(Progress(name, played / planned, left, (ended, planned)))
        return found

    def calls_left(self) -> int:
        """Estimated calls that these phases still need, for episodes as long as the whole ones so far."""
        most = self._experiment.task.max_steps
        done = sum(seed in one.seeds for one in self.phases.values() for _, seed in self._record.ended)
        calls = [one.calls for one in self._record.ended.values() if isinstance(one, Tally)]
        each = fmean(calls) if calls else most
        return round(max(self._experiment.verdict_calls / most - done, 0) * each)

    def _later(self, best: Sequence[Trial], seeds: Sequence[int], baselines: Sequence[int] = ()) -> Calls:
        """Calls to leave for the finalists on these seeds, and for the baseline on others.

        The finalists are assumed to play on the dearest of the models of `best`, as long as the one of them
        that plays longest, and once as long as possible. What is on record is not played again: another
        worker may have played some while this one waits for a dead one's.
        """
        ended, kept, experiment = self._record.ended, self._record.unused_calls(), self._experiment
        baseline, most = experiment.baseline, experiment.task.max_steps
        candidates = [baseline, *(one.candidate for one in best)]
        usual = usual_calls(candidates, ended, experiment.verdict.episodes, experiment.task)
        longest = max((usual[one.candidate.digest] for one in best), default=most)
        made = {**dict.fromkeys(ended, most), **kept}.items()
        played = [calls for (digest, seed), calls in made if seed in seeds and digest != baseline.digest]
        left = experiment.verdict.finalists * len(seeds) * longest - sum(min(one, longest) for one in played)
        models = [self._player.model_of(one.candidate) for one in best] or [BASELINES]
        calls = Calls(
            {self._player.spending.dearest(models): ceil(left + most - longest) if left > ROUNDING else 0}
        )
        playing = {one.seed for one in self._player.playing if one.candidate == baseline}
        keys = [(baseline.digest, seed) for seed in baselines if seed not in playing]
        owed = [max(usual[baseline.digest] - kept[key], 0) for key in keys if key not in ended]
        calls[BASELINES] += ceil(sum(owed))
        return calls

    def _retry_baseline(self) -> None:
        """If all of the baseline's episodes failed in an earlier process, play them again."""
        keys = [(self._experiment.baseline.digest, seed) for seed in self.holdout.seeds]
        if all(isinstance(self._record.ended.get(key), FailedEpisode) for key in keys):
            for key in keys:
                self._record.forget_failure(*key)


async def _played(
    trials: Sequence[Trial], phase: Phase, later: Callable[[int], Calls]
) -> list[tuple[Trial, Evaluation]]:
    await phase.play({trial.number: trial.candidate for trial in trials}, later)
    return [(trial, phase.evaluation(trial.candidate)) for trial in trials]


def _names(trials: Sequence[Trial]) -> str:
    return ", ".join(trial.name for trial in trials) or "no candidate"
