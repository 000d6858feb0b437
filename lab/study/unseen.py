"""Unseen episodes: confirmation and holdout, played on seeds that the search never plays.

It owns these seeds and the order of the two phases. Each phase is a separate Optuna study with a waiting
trial for each episode, so that workers share them. If the budget has no room for all episodes, the played
ones are judged: the holdout takes precedence over the confirmation, and the baseline leaves room for the
finalist's episode on each seed. Judging is `lab.verdict.verdict`'s.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import optuna
from optuna.trial import TrialState

from lab.agent.candidate import Candidate
from lab.agent.episode import Ending, Episode, FailedEpisode, Tally
from lab.agent.evaluation import BASELINE, Evaluation, Trial
from lab.display.screen import Progress
from lab.errors import BudgetError
from lab.experiment.budget import BASELINES, Calls
from lab.experiment.experiment import Experiment
from lab.search.player import Played, Player
from lab.search.trials import evaluation
from lab.storage.record import CONFIRMATION, HOLDOUT, EpisodeKey, Record
from lab.storage.trials import StudyTrials, Trials
from lab.verdict.verdict import Confirmed, Verdict, confirm, finalists, judge

Announce = Callable[[str, str], None]
"""Called with a phase's name and a sentence about it."""

LEFT_S = 3
"""Seconds for which a worker without room lets others take up what it has handed over."""


@dataclass
class Phase:
    """Confirmation or holdout.

    Attributes:
        candidates: Number of candidates that play it.
        running: The trials that this process plays.
    """

    name: str
    seeds: range
    study: Trials
    candidates: int
    running: dict[int, optuna.Trial] = field(default_factory=dict)


class Unseen:
    """The phases after the search, in one process.

    Args:
        announce: Called at the start of a phase.
    """

    def __init__(
        self,
        experiment: Experiment,
        player: Player,
        record: Record,
        trials: StudyTrials,
        announce: Announce,
    ) -> None:
        self._experiment, self._player, self._record = experiment, player, record
        self._announce = announce
        self.confirmation = Phase(
            "confirmation",
            seeds_of(experiment, CONFIRMATION),
            trials.confirmation,
            experiment.confirmation.candidates,
        )
        self.holdout = Phase(
            "holdout", seeds_of(experiment, HOLDOUT), trials.holdout, experiment.verdict.finalists + 1
        )
        self._changed = asyncio.Event()

    def beat(self) -> None:
        """Record heartbeats of this process's trials."""
        for phase in (self.confirmation, self.holdout):
            phase.study.beat(list(phase.running.values()))

    def wake(self) -> None:
        """Take in what other processes have changed."""
        self._changed.set()

    def leave(self) -> None:
        """Hand over this process's trials to other workers."""
        for phase in (self.confirmation, self.holdout):
            phase.study.hand_over(list(phase.running.values()))

    async def baseline(self, best: Sequence[Trial]) -> Evaluation:
        """Play the baseline on the holdout.

        Args:
            best: The search's best candidates, of which some will be finalists.

        Raises:
            LabError: All of its episodes failed.
        """
        baseline = self._experiment.baseline
        self._retry(baseline)
        later = {
            seed: self._finalists_calls(best, place + 1) for place, seed in enumerate(self.holdout.seeds)
        }
        await self._play(self.holdout, {BASELINE: baseline}, later)
        evaluation = self._evaluation(baseline, self.holdout)
        if evaluation.failed and not evaluation.episodes:
            raise evaluation.failed[0].error
        return evaluation

    async def confirmed(self, best: Sequence[Trial]) -> tuple[Confirmed, ...]:
        """Play the search's best candidates on fresh seeds."""
        self.confirmation.candidates = len(best)
        self._announce("confirmation", f"Confirming {_names(best)} on fresh seeds.")
        kept = self._finalists_calls(best, self._experiment.verdict.episodes)
        played = await self._played(best, self.confirmation, dict.fromkeys(self.confirmation.seeds, kept))
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
        played = await self._played(last, self.holdout, dict.fromkeys(self.holdout.seeds, Calls()))
        verdict = judge(confirmed, await baseline, played, objective, table.confidence, table.judge)
        return verdict if verdict.finalists else None

    def progress(self) -> list[Progress]:
        """Return how far both phases are."""
        spent, playing = self._player.spending, self._player.playing
        found = list[Progress]()
        for phase in (self.confirmation, self.holdout):
            planned = phase.candidates * len(phase.seeds)
            ended = sum(seed in phase.seeds for _, seed in self._record.ended)
            steps = sum(one.steps for one in playing if one.seed in phase.seeds)
            played = ended + steps / self._experiment.task.max_steps
            left = spent.minutes / spent.episodes * max(planned - played, 0.0) if spent.episodes else None
            found.append(Progress(phase.name, played / planned, left, (ended, planned)))
        return found

    def calls_left(self) -> int:
        """Maximum calls that these phases still need."""
        first = self._experiment.seed + CONFIRMATION
        done = sum(seed >= first for _, seed in self._record.ended) * self._experiment.task.max_steps
        return max(self._experiment.verdict_calls - done, 0)

    def _finalists_calls(self, best: Sequence[Trial], episodes: int) -> Calls:
        """Maximum calls of all finalists for this many episodes, on the dearest of the models of `best`."""
        models = [self._player.model_of(one.candidate) for one in best] or [BASELINES]
        table, steps = self._experiment.verdict, self._experiment.task.max_steps
        return Calls({self._player.spending.dearest(models): episodes * table.finalists * steps})

    async def _played(
        self, trials: Sequence[Trial], phase: Phase, later: Mapping[int, Calls]
    ) -> list[tuple[Trial, Evaluation]]:
        await self._play(phase, {trial.number: trial.candidate for trial in trials}, later)
        return [(trial, self._evaluation(trial.candidate, phase)) for trial in trials]

    async def _play(
        self, phase: Phase, candidates: Mapping[int, Candidate], later: Mapping[int, Calls]
    ) -> None:
        """Play all unfinished episodes of these candidates in the phase; workers share them."""
        wanted = {one.digest: one for one in candidates.values()}
        self._enqueue(phase, candidates)
        refused = list[BudgetError]()
        async with asyncio.TaskGroup() as group:
            while True:
                waiting = self._waiting(phase, wanted)
                if waiting and not refused:
                    await self._player.room()
                    if one := self._ask(phase, wanted):
                        trial, key = one
                        play = self._episode(phase, trial, wanted[key[0]], key[1], later[key[1]], refused)
                        group.create_task(play)
                        await asyncio.sleep(0)
                elif self._is_over(phase, wanted, refused=bool(refused)):
                    if not waiting or await self._is_left(phase, wanted):
                        break
                else:
                    await self._changed.wait()
                    self._changed.clear()

    def _enqueue(self, phase: Phase, candidates: Mapping[int, Candidate]) -> None:
        with self._record.store.exclusively():
            live = [one for one in phase.study.read() if one.state is not TrialState.FAIL]
            known = {_key(one) for one in live} | self._record.ended.keys()
            for number, candidate in candidates.items():
                for seed in phase.seeds:
                    if (candidate.digest, seed) not in known:
                        attributes = {"digest": candidate.digest, "seed": seed, "trial": number}
                        phase.study.enqueue({}, **attributes)

    def _ask(self, phase: Phase, wanted: Mapping[str, Candidate]) -> tuple[optuna.Trial, EpisodeKey] | None:
        """Start the next waiting trial, or one of a dead process; None if a worker was faster."""
        with self._record.store.exclusively():
            phase.study.read()
            waiting = self._waiting(phase, wanted)
            if not waiting:
                return None
            chosen = waiting[0]
            if chosen.state is TrialState.RUNNING:
                trial = phase.study.take_up(chosen)
            else:
                trial = phase.study.claim(chosen)
        phase.running[trial.number] = trial
        return trial, _key(chosen)

    def _waiting(self, phase: Phase, wanted: Mapping[str, Candidate]) -> list[optuna.trial.FrozenTrial]:
        """Trials that no process plays; on a file this includes running trials of an earlier process."""
        left = () if self._record.store.shared else (TrialState.RUNNING,)
        return [
            one
            for one in phase.study.in_state(TrialState.WAITING, *left)
            if one.user_attrs.get("digest") in wanted and one.number not in phase.running
        ]

    async def _is_left(self, phase: Phase, wanted: Mapping[str, Candidate]) -> bool:
        """Whether no other worker takes up what waits, for which this one's budget has no room."""
        for _ in range(LEFT_S if self._record.store.shared else 0):
            await asyncio.sleep(1)
            phase.study.read()
            if not self._is_over(phase, wanted, refused=True):
                return False
        return True

    def _is_over(self, phase: Phase, wanted: Mapping[str, Candidate], *, refused: bool) -> bool:
        """Whether nothing is being played, and nothing waits for which the budget has room."""
        if refused and not self._record.store.shared:
            return True
        open_ones = (TrialState.RUNNING,) if refused else (TrialState.RUNNING, TrialState.WAITING)
        return not any(
            one.user_attrs.get("digest") in wanted and not (refused and one.number in phase.running)
            for one in phase.study.in_state(*open_ones)
        )

    async def _episode(
        self,
        phase: Phase,
        trial: optuna.Trial,
        candidate: Candidate,
        seed: int,
        later: Calls,
        refused: list[BudgetError],
    ) -> None:
        """Play one episode, and add to `refused` if the budget has no room for it."""
        try:
            self._tell(phase, trial, await self._player.episode(candidate, seed, later=later))
        except BudgetError as error:  # its trial stays open or waiting until the limit is raised
            self._player.stopped_by = error
            refused.append(error)
            if self._record.store.shared:
                phase.study.hand_over([phase.running.pop(trial.number)])
                phase.study.read()
        finally:
            self._changed.set()

    def _tell(self, phase: Phase, trial: optuna.Trial, ending: Played | Ending) -> None:
        del phase.running[trial.number]
        if isinstance(ending, Tally | Episode):
            task, measure = self._experiment.task, self._experiment.objective.maximise
            value = task.value_of(ending.rewards, measure, ending.own_score)
            phase.study.tell(trial, TrialState.COMPLETE, value)
        else:
            reason = ending.error.what if isinstance(ending, FailedEpisode) else "cut"
            phase.study.note(trial, "reason", reason)
            phase.study.tell(trial, TrialState.FAIL)

    def _retry(self, baseline: Candidate) -> None:
        """If all of the baseline's episodes failed in an earlier process, play them again."""
        keys = [(baseline.digest, seed) for seed in self.holdout.seeds]
        if all(isinstance(self._record.ended.get(key), FailedEpisode) for key in keys):
            for key in keys:
                self._record.forget_failure(*key)

    def _evaluation(self, candidate: Candidate, phase: Phase) -> Evaluation:
        return evaluation(self._experiment, candidate, phase.seeds, self._record.ended)


def seeds_of(experiment: Experiment, phase: int) -> range:
    """Return the seeds of CONFIRMATION or HOLDOUT."""
    first = experiment.seed + phase
    table = experiment.confirmation if phase == CONFIRMATION else experiment.verdict
    return range(first, first + table.episodes)


def _key(trial: optuna.trial.FrozenTrial) -> EpisodeKey:
    return trial.user_attrs["digest"], trial.user_attrs["seed"]


def _names(trials: Sequence[Trial]) -> str:
    return ", ".join(trial.name for trial in trials) or "no candidate"
