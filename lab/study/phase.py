"""A Phase: confirmation or holdout, as an Optuna study with a trial for each episode, which workers share.

It owns its seeds, and playing each of its episodes once. If the budget has no room for all of them, it ends
with the played ones. Which candidates play it, and in which order the phases come, is `lab.study.unseen`'s.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

import optuna
from optuna.trial import TrialState

from lab.agent.candidate import Candidate
from lab.agent.episode import Ending, Episode, FailedEpisode, Tally
from lab.agent.evaluation import Evaluation
from lab.errors import BudgetError
from lab.experiment.budget import Calls
from lab.experiment.experiment import Experiment
from lab.search.player import Played, Player
from lab.search.trials import evaluation, seeds_of
from lab.storage.keys import EpisodeKey
from lab.storage.optuna_storage import GRACE_S
from lab.storage.record import Record
from lab.storage.trials import Trials


class Phase:
    """One phase in one process.

    Attributes:
        seeds: The phase's seeds; every candidate plays all of them.
        candidates: Number of candidates that play it.

    Args:
        offset: CONFIRMATION or HOLDOUT.
    """

    def __init__(
        self,
        offset: int,
        candidates: int,
        experiment: Experiment,
        player: Player,
        record: Record,
        study: Trials,
    ) -> None:
        self.seeds, self.candidates = seeds_of(experiment, offset), candidates
        self._experiment, self._player, self._record, self._study = experiment, player, record, study
        self._running = dict[int, optuna.Trial]()
        self._changed = asyncio.Event()

    def beat(self) -> None:
        """Record heartbeats of this process's trials."""
        self._study.beat(list(self._running.values()))

    def wake(self) -> None:
        """Take in what other processes have changed."""
        self._changed.set()

    def leave(self) -> None:
        """Hand over this process's trials to other workers."""
        self._study.hand_over(list(self._running.values()))

    def evaluation(self, candidate: Candidate) -> Evaluation:
        """A candidate's episodes of the phase."""
        self._read()
        return evaluation(self._experiment, candidate, self.seeds, self._record.ended)

    async def play(self, candidates: Mapping[int, Candidate], later: Callable[[int], Calls]) -> None:
        """Play all unfinished episodes of these candidates; workers share them.

        Args:
            candidates: Candidates by the number of their trial in the search.
            later: Returns the calls to leave for other episodes when one of a seed starts.
        """
        wanted = {one.digest: one for one in candidates.values()}
        self._enqueue(candidates)
        refused = list[BudgetError]()
        async with asyncio.TaskGroup() as group:
            while True:
                waiting = self._waiting(wanted)
                if waiting and not refused:
                    await self._player.room()
                    if one := self._ask(wanted):
                        trial, (digest, seed) = one
                        group.create_task(
                            self._episode(trial, wanted[digest], seed, partial(later, seed), refused)
                        )
                        await asyncio.sleep(0)
                elif self._is_over(wanted, refused=bool(refused)):
                    if not waiting or await self._is_left(wanted):
                        break
                else:
                    await self._changed.wait()
                    self._changed.clear()

    def _enqueue(self, candidates: Mapping[int, Candidate]) -> None:
        with self._record.store.exclusively():
            live = [one for one in self._read() if one.state is not TrialState.FAIL]
            known = {_key(one) for one in live} | self._record.ended.keys()
            for number, candidate in candidates.items():
                for seed in self.seeds:
                    if (candidate.digest, seed) not in known:
                        attributes = {"digest": candidate.digest, "seed": seed, "trial": number}
                        self._study.enqueue({}, **attributes)

    def _read(self) -> list[optuna.trial.FrozenTrial]:
        """Read the trials, and after them the episodes, of which each is stored before its trial ends."""
        trials = self._study.read()
        if self._record.store.shared:
            self._record.refresh()
        return trials

    def _ask(self, wanted: Mapping[str, Candidate]) -> tuple[optuna.Trial, EpisodeKey] | None:
        """Start the next waiting trial, or one of a dead process; None if a worker was faster."""
        with self._record.store.exclusively():
            self._study.read()
            waiting = self._waiting(wanted)
            if not waiting:
                return None
            chosen = waiting[0]
            if chosen.state is TrialState.RUNNING:
                trial = self._study.take_up(chosen)
            else:
                trial = self._study.claim(chosen)
        self._running[trial.number] = trial
        return trial, _key(chosen)

    def _waiting(self, wanted: Mapping[str, Candidate]) -> list[optuna.trial.FrozenTrial]:
        """Trials that no process plays; on a file this includes running trials of an earlier process."""
        left = () if self._record.store.shared else (TrialState.RUNNING,)
        return [
            one
            for one in self._study.in_state(TrialState.WAITING, *left)
            if one.user_attrs.get("digest") in wanted and one.number not in self._running
        ]

    async def _is_left(self, wanted: Mapping[str, Candidate]) -> bool:
        """Whether no other worker takes up what waits, for which this one's budget has no room.

        A living one does so, on a slow machine too, by the time at which a silent one counts as dead.
        """
        for _ in range(GRACE_S if self._record.store.shared else 0):
            await asyncio.sleep(1)
            self._study.read()
            if not self._is_over(wanted, refused=True):
                return False
        return True

    def _is_over(self, wanted: Mapping[str, Candidate], *, refused: bool) -> bool:
        """Whether nothing is being played, and nothing waits for which the budget has room."""
        if refused and not self._record.store.shared:
            return True
        open_ones = (TrialState.RUNNING,) if refused else (TrialState.RUNNING, TrialState.WAITING)
        return not any(
            one.user_attrs.get("digest") in wanted and not (refused and one.number in self._running)
            for one in self._study.in_state(*open_ones)
        )

    async def _episode(
        self,
        trial: optuna.Trial,
        candidate: Candidate,
        seed: int,
        later: Callable[[], Calls],
        refused: list[BudgetError],
    ) -> None:
        """Play one episode, and add to `refused` if the budget has no room for it."""
        try:
            self._tell(trial, await self._player.episode(candidate, seed, later=later))
        except BudgetError as error:  # its trial stays open or waiting until the limit is raised
            self._player.stopped_by = error
            refused.append(error)
            if self._record.store.shared:
                self._study.hand_over([self._running.pop(trial.number)])
                self._study.read()
        finally:
            self._changed.set()

    def _tell(self, trial: optuna.Trial, ending: Played | Ending) -> None:
        del self._running[trial.number]
        if isinstance(ending, Tally | Episode):
            task, measure = self._experiment.task, self._experiment.objective.maximise
            value = task.value_of(ending.rewards, measure, ending.own_score)
            self._study.tell(trial, TrialState.COMPLETE, value)
        else:
            reason = ending.error.what if isinstance(ending, FailedEpisode) else "cut"
            self._study.note(trial, "reason", reason)
            self._study.tell(trial, TrialState.FAIL)


def _key(trial: optuna.trial.FrozenTrial) -> EpisodeKey:
    return trial.user_attrs["digest"], trial.user_attrs["seed"]
