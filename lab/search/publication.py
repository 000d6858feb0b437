"""Publishing trials with their rank: to the screen, to MLflow, and the leader to the study.

It owns when that is done. The ranking is `lab.search.trials`'s.
"""

import time
from collections.abc import Callable, Sequence

from lab.agent.evaluation import Trial
from lab.search.trials import state_leader
from lab.storage.trials import Trials

SHARE = 0.1
"""Maximum share of the time that ranking takes; every trial is ranked each time."""


class Publication:
    """Trials that ended a rung, until they are published.

    Args:
        ranked: Returns all trials, best first, with an interval for the trials of these numbers, or for all.
        on_ranked: Called with the ranking.
        on_trial: Called with each trial that is published.
    """

    def __init__(
        self,
        study: Trials,
        ranked: Callable[[Sequence[int] | None], list[Trial]],
        on_ranked: Callable[[Sequence[Trial]], None],
        on_trial: Callable[[Trial], None],
    ) -> None:
        self._study, self._ranked = study, ranked
        self._on_ranked, self._on_trial = on_ranked, on_trial
        self._owed, self._next_s = dict[int, int](), 0.0
        self._leader: int | None = None

    @property
    def due_s(self) -> float | None:
        """Seconds until the next publication; None if there is nothing to publish."""
        return max(0.0, self._next_s - time.monotonic()) if self._owed else None

    def add(self, number: int, trial: int) -> None:
        """Publish a trial soon: its number, and its number in Optuna's study."""
        self._owed[number] = trial

    def publish(self, *, everything: bool = False) -> None:
        """Publish all that is owed, or every trial, and store the leader if it has changed."""
        if not self._owed and not everything:
            return
        began_s, owed = time.monotonic(), self._owed
        self._owed = {}
        trials = self._ranked(None if everything else list(owed.values()))
        self._on_ranked(trials)
        for trial in trials:
            if everything or trial.number in owed:
                self._on_trial(trial)
        if trials and trials[0].number != self._leader:
            self._leader = trials[0].number
            state_leader(self._study, trials[0])
        ended_s = time.monotonic()
        self._next_s = ended_s + (ended_s - began_s) * (1 / SHARE - 1)
