"""Workers: who is at work on a study, and what they have spent, told every second.

A worker that was not seen for a while is dead, and the others go on with what it was playing. Optuna's
heartbeat knows trials; what is taken over here is an episode. On a file there is one worker, and no other.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import sqlalchemy as sql

from lab.errors import ConfigError
from lab.storage.database import workers
from lab.storage.record import Record

BEAT_S, NEWS_S = 1.0, 0.1
"""How often a worker says that it is there, and how often it asks for what the others wrote."""

GRACE_S = 15.0
"""Without a word, after which a worker is dead."""

_NOW = sql.func.extract("epoch", sql.func.clock_timestamp())
"""The server's clock: the only one that all workers have."""


async def _join(record: Record, *, alone: bool) -> None:
    """Be one of the study's workers; the remains of one that died a moment ago are waited for."""
    until_s = time.monotonic() + GRACE_S + BEAT_S
    while True:
        with record.store.exclusively():
            others = _at_work(record)
            if not (alone and others):
                me = {"study": record.name, "worker": record.worker, "joined": _NOW, "seen": _NOW}
                record.store.execute(workers.insert().values(me))
                record.see(frozenset(others))
                return
        if time.monotonic() > until_s:
            what = "Another process is working on this experiment's study."
            raise ConfigError(what, where=f"{record.name}: {others[0]}", do="--worker joins it; or stop it")
        await asyncio.sleep(BEAT_S)


def _at_work(record: Record) -> list[str]:
    """The workers that were seen of late, the first to join first."""
    seen = sql.select(workers.c.worker).where(workers.c.study == record.name, workers.c.seen > _NOW - GRACE_S)
    return [row.worker for row in record.store.rows(seen.order_by(workers.c.joined, workers.c.worker))]


@asynccontextmanager
async def working(
    record: Record, on_beat: Callable[[], None], on_lead: Callable[[], None], *, alone: bool
) -> AsyncIterator[None]:
    """Be one of the study's workers: be seen, and see the others and what they write; in the end, leave.

    Args:
        on_beat: called every second, where there may be others.
        on_lead: called once this is the worker that has been there for the longest.
        alone: there is to be no other.

    Raises:
        ConfigError: there is another.
        LabError: also of the beat itself, as one of a group.
    """
    if not record.store.shared:
        on_lead()
        yield
        return
    await _join(record, alone=alone)
    try:
        async with asyncio.TaskGroup() as group:
            beating = group.create_task(_beat(record, on_beat, on_lead))
            yield
            beating.cancel()
    finally:
        mine = (workers.c.study == record.name, workers.c.worker == record.worker)
        record.store.execute(sql.delete(workers).where(*mine))


async def _beat(record: Record, on_beat: Callable[[], None], on_lead: Callable[[], None]) -> None:
    leads, beat_s = False, 0.0
    while True:
        record.read()
        if time.monotonic() >= beat_s + BEAT_S:
            beat_s = time.monotonic()
            mine = (workers.c.study == record.name, workers.c.worker == record.worker)
            record.store.execute(sql.update(workers).where(*mine).values(seen=_NOW))
            others = _at_work(record)
            record.see(frozenset(others))
            if not leads and others[:1] == [record.worker]:
                leads = True
                on_lead()
            on_beat()
        await asyncio.sleep(NEWS_S)
