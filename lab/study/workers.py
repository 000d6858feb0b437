"""Workers: the processes that work on one study, as seen by one of them.

It owns what they agree on through the storage: who leads, with which trials all continue, when the last may
leave. A process that works alone on a file leads, and agrees with itself.
"""

import asyncio
from collections.abc import Callable, Sequence

from lab.agent.evaluation import Trial
from lab.search.loop import Search
from lab.search.player import Player
from lab.storage.optuna_storage import BEAT_S
from lab.storage.record import Record
from lab.storage.trials import Trials
from lab.study.unseen import Unseen


class Workers:
    """The workers of one study.

    Args:
        study: The search's trials, whose facts all workers read.
        on_lead: Called each time this process is found to lead.
    """

    def __init__(self, record: Record, study: Trials, on_lead: Callable[[], None]) -> None:
        self._record, self._study, self._on_lead = record, study, on_lead

    def lead(self) -> bool:
        """Whether this process is the one worker that writes to MLflow."""
        if leads := self._record.store.lead(self._record.name):
            self._on_lead()
        return leads

    def agreed(self, key: str, chosen: Sequence[Trial], search: Search) -> list[Trial]:
        """The trials with which all workers continue: those that the first worker chose."""
        if not chosen:
            return []
        with self._record.store.exclusively():
            numbers = self._study.fact(key)
            if numbers is None:
                numbers = [trial.number for trial in chosen]
                self._study.state_fact(key, numbers)
        known = {trial.number: trial for trial in (*search.trials(), *chosen)}
        return [known[number] for number in numbers]

    async def beat(self, search: Search, unseen: Unseen, player: Player) -> None:
        """Exchange heartbeats and news with other workers, on a shared storage, until cancelled."""
        while self._record.store.shared:
            self.lead()
            await asyncio.sleep(BEAT_S)
            self._study.beat(search.running)
            for phase in unseen.phases.values():
                phase.beat()
            self._record.refresh()
            player.spending.recount()
            if player.first is not None:
                player.first.refresh()
            search.wake()
            for phase in unseen.phases.values():
                phase.wake()

    async def passed_on(self) -> None:
        """Wait until the leading worker has the outcome; become the leader if it has died."""
        while self._study.fact("passed_on") is None:
            if self.lead():
                self._study.state_fact("passed_on", True)
            else:
                await asyncio.sleep(BEAT_S)
