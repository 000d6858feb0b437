"""The Record: one study's journal and calls, as one of the workers on it sees them.

Journal entries are numbered without a gap, and the number is the key: who writes an entry knows all before
it. So a decision holds for all workers, or was made too late and is made again; that is the whole of how
they agree. The texts of episodes are most of a journal: they stay in the store, and whoever shows them reads
them there. What an entry means is `lab.storage.journal`'s; when a call is looked up instead of made is
`lab.storage.call_cache`'s; who is at work is `lab.storage.workers`'.
"""

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sql
from pydantic import ValidationError

from lab.agent.episode import CutEpisode, Ending, Episode, FailedEpisode, Tally
from lab.agent.troubles import Troubles, total
from lab.errors import CallError, ConfigError, LabError, plain
from lab.experiment.budget import FREE, Prices, Spent, out_of_budget
from lab.llm.client import Completion
from lab.llm.response import MOST_TOKENS, count
from lab.storage.database import Store, calls, events, failures, studies, unusable
from lab.storage.journal import (
    Begun,
    Ended,
    Event,
    Failed,
    Judged,
    Opened,
    Over,
    Seen,
    Stopped,
    Taken,
    event_json,
    read_event,
)
from lab.storage.work import Work

PAGE = 500
"""Entries of the journal that are read at a time: with the texts of episodes they are large."""

PROPOSALS = "proposals"
"""The scope of the calls that propose texts; every other scope is an episode's."""

CONFIRMATION, HOLDOUT, COMPARISON = 500_000, 1_000_000, 1_500_000
"""How far the seeds of confirmation, holdout and `lab.compare` lie from the search's, which end before."""

Which = tuple[str, int]
"""An episode: its candidate's digest, and the environment's seed."""


@dataclass(frozen=True)
class CallKey:
    """Which call of a study: who asked, the request's digest, and the how-manieth such request it was."""

    scope: str
    key: str
    occurrence: int


class NothingRecordedError(ConfigError):
    """A replay needs what was never recorded."""


class Record:
    """One study's record.

    Attributes:
        document: what the study depends on.
        worker: this process, by a name of its own.
        alive: the workers that are at work, this one among them.
        events: the journal, as far as it was read.
        times: when each of its entries was written, in seconds since 1970.
        ended: how each episode ended that has; `episode` has the texts.
        unended: who plays each episode that was begun and has not ended.
        uncounted: episodes that ended elsewhere since it was last asked what was spent there.
        sealed: nothing is written any more; what would have to be was not recorded.
        stopped: the error that ended the study for good; None where none did.
    """

    def __init__(self, store: Store, name: str, document: str) -> None:
        self.store, self.name, self.document, self.sealed = store, name, document, False
        self.worker = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.alive = frozenset({self.worker})
        self.events: list[Seen] = []
        self.times: list[float] = []
        self.ended: dict[Which, Ending] = {}
        self._places: dict[Which, int] = {}
        self.unended: dict[Which, str] = {}
        self.uncounted = 0
        self.stopped: Stopped | None = None
        self._work_s = Work()
        self._change = asyncio.Event()
        self.read()
        self.earlier_minutes = self._work_s.seconds / 60

    def read(self) -> bool:
        """Read what others wrote; whether there was anything."""
        known, more = len(self.events), True
        while more:
            rows = self.store.rows(self._entries(events.c.number >= len(self.events)).limit(PAGE))
            for row in rows:
                self._take(row.at, row.worker, self._event(row))
            more = len(rows) == PAGE
        return len(self.events) > known

    def change(self, document: str) -> None:
        """What the study depends on is this from now on."""
        mine = studies.c.name == self.name
        self.store.execute(sql.update(studies).where(mine).values(document=document))
        self.document = document

    def episode(self, digest: str, seed: int) -> Episode:
        """One of `episodes_of`."""
        (episode,) = self.episodes_of(digest, [seed])
        return episode

    def episodes_of(self, digest: str, seeds: Sequence[int]) -> list[Episode]:
        """A candidate's episodes that were played to their ends, with their texts, in the order of `seeds`.

        They may be read from any thread.

        Raises:
            KeyError: one was not.
        """
        places = [self._places[digest, seed] for seed in seeds]
        played: dict[int, Episode] = {}
        for row in self.store.rows(self._entries(events.c.number.in_(places))):
            event = self._event(row)
            assert isinstance(event, Ended)
            assert isinstance(event.played, Episode)
            played[event.played.seed] = event.played
        return [played[seed] for seed in seeds]

    def propose(self, event: Event) -> bool:
        """Write the next entry, unless another worker was faster: then read what it wrote, and decide again.

        Raises:
            NothingRecordedError: the record is sealed.
        """
        if self.sealed:
            raise self.ends_here()
        at = time.time()
        place = {"study": self.name, "number": len(self.events)}
        if self.store.insert(events, {**place, "at": at, "worker": self.worker, "body": event_json(event)}):
            self._take(at, self.worker, event)
            return True
        if not self.read():
            where = f"{self.name} in {self.store.where}"
            raise LabError("The study is not in its storage any more.", where=where, do="begin a new one")
        return False

    def append(self, event: Event) -> None:
        """Write what happened, after all that others wrote; it is kept when this returns."""
        while not self.propose(event):
            pass

    def claim(self, which: Which) -> bool:
        """Whether this worker is to play an episode: it is its own already, or nobody's who is at work."""
        while which not in self.ended:
            player = self.unended.get(which)
            if player == self.worker:
                return True
            if player in self.alive:
                return False
            if self.propose(Taken(*which)):
                return True
        return False

    def reopen(self, which: Which) -> None:
        """Let an episode that failed be played again, by this process or another: the later end counts."""
        del self.ended[which]
        self.unended[which] = ""

    async def changed(self) -> None:
        """Return when something was written, or a worker has come or gone."""
        await self._change.wait()

    def tell(self) -> None:
        """Wake everybody who waits in `changed`."""
        self._change.set()
        self._change = asyncio.Event()

    def see(self, alive: frozenset[str]) -> None:
        """These other workers are at work."""
        now = alive | {self.worker}
        if now != self.alive:
            self.alive = now
            self.tell()

    def seal(self) -> None:
        """Allow no further entry: this is a replay."""
        self.sealed = True

    def ends_here(self) -> LabError:
        """The error of a replay that needs more than there is, or of a verdict that the budget cut short."""
        if self.judged and self.judged.limit:
            return out_of_budget(self.judged.limit)
        made = sum(self.spent_elsewhere(FREE, proposals=kind).calls for kind in (False, True))
        what = f"The record ends here: {made:,} calls in {len(self.ended)} episodes, and no verdict."
        do = "the same command without --replay goes on from here"
        return NothingRecordedError(what, where=f"{self.name} in {self.store.where}", do=do)

    @property
    def judged(self) -> Judged | None:
        """When and after how long the verdict was given; None where it was not."""
        return next((event for event in reversed(self.events) if isinstance(event, Judged)), None)

    @property
    def troubles(self) -> Troubles:
        """The troubles of all steps of the episodes that ended."""
        return total(one.troubles for one in self.ended.values() if isinstance(one, Tally | CutEpisode))

    @property
    def episodes(self) -> int:
        """How many were played to their end."""
        return len(self._places)

    def calls_of(self, scope: str) -> dict[CallKey, Completion]:
        """The calls of one scope."""
        mine = sql.select(calls).where(calls.c.study == self.name, calls.c.scope == scope)
        return {
            CallKey(row.scope, row.key, row.occurrence): _completion(row) for row in self.store.rows(mine)
        }

    async def keep_call(self, key: CallKey, request: str, completion: Completion) -> None:
        """Write a call that was answered; the first answer stays, where two workers got one."""
        row = {
            "study": self.name,
            "scope": key.scope,
            "key": key.key,
            "occurrence": key.occurrence,
            "at": time.time(),
            "worker": self.worker,
            "request": request,
            "text": completion.text,
            "finish_reason": completion.finish_reason,
            "prompt_tokens": completion.prompt_tokens,
            "completion_tokens": completion.completion_tokens,
            "latency_s": completion.latency_s,
            "attempts": completion.attempts,
        }
        if self.store.shared:  # a server's answer takes time, in which the other calls go on
            await asyncio.to_thread(self.store.insert, calls, row)
        else:
            self.store.insert(calls, row)

    def keep_failure(self, error: LabError, *, proposals: bool = False) -> None:
        """Write an attempt at a call that failed, and what it cost where it was answered.

        Args:
            proposals: whether the call was one of the proposing model, where that is another one.
        """
        row = {"study": self.name, "at": time.time(), "what": plain(error.what), "why": plain(error.why)}
        self.store.insert(failures, row)
        if isinstance(error, CallError) and error.answered is not None:
            tokens = dict(zip(("prompt_tokens", "completion_tokens"), error.answered, strict=True))
            place = {"study": self.name, "worker": self.worker, "proposals": proposals}
            self.store.insert(unusable, {**place, **tokens})

    def failures(self) -> dict[str, int]:
        """How many attempts failed, by what happened; the most frequent first."""
        times = sql.func.count().label("times")
        query = (
            sql.select(failures.c.what, times)
            .where(failures.c.study == self.name)
            .group_by(failures.c.what)
            .order_by(times.desc(), failures.c.what)
        )
        return {row.what: row.times for row in self.store.rows(query)}

    def spent_elsewhere(self, prices: Prices, *, proposals: bool) -> Spent:
        """What was spent on episodes, or on proposals, by other processes than this."""
        self.uncounted = 0
        of_kind = (calls.c.scope == PROPOSALS) if proposals else (calls.c.scope != PROPOSALS)
        sums = [self._sums(calls, of_kind), self._sums(unusable, unusable.c.proposals == proposals)]
        made, tokens_in, tokens_out = map(sum, zip(*sums, strict=True))
        unpriced, (_, (useless, *_)) = 0 if prices.known else made, sums
        dollars = prices.dollars(tokens_in, tokens_out)
        return Spent(made, tokens_in, tokens_out, dollars, unpriced, useless)

    def _sums(self, table: sql.Table, of_kind: sql.ColumnElement[bool]) -> list[int]:
        """Rows that other processes wrote, and the tokens in them, each within what a call can have."""
        tokens = (table.c.prompt_tokens, table.c.completion_tokens)
        counted = (sql.case((each.between(0, MOST_TOKENS), each), else_=0) for each in tokens)
        query = sql.select(
            sql.func.count(), *(sql.func.coalesce(sql.func.sum(each), 0) for each in counted)
        ).where(table.c.study == self.name, table.c.worker != self.worker, of_kind)
        return list(map(int, self.store.rows(query)[0]))

    def _entries(self, which: sql.ColumnElement[bool]) -> sql.Select[Any]:
        query = sql.select(events.c.at, events.c.worker, events.c.body)
        return query.where(events.c.study == self.name, which).order_by(events.c.number)

    def _event(self, row: sql.Row[Any]) -> Event:
        try:
            return read_event(row.body)
        except ValidationError as error:
            where, do = f"{self.name} in {self.store.where}", "--fresh begins a new study"
            raise LabError("The study's journal is damaged.", where=where, why=str(error), do=do) from None

    def _take(self, at: float, worker: str, event: Event) -> None:
        self.events.append(_seen(event))
        self.times.append(at)
        self._work_s.wrote(at, worker, event)
        if isinstance(event, Ended | Failed) and worker != self.worker:
            self.uncounted += 1
        match event:
            case Opened() if self.store.shared:
                self.alive |= {worker}  # whoever is gone again is not there at the next look
            case Begun(candidate, first, last):
                for seed in range(first, last):
                    self.unended[candidate.digest, seed] = worker
            case Taken(digest, seed) if (digest, seed) not in self.ended:
                self.unended[digest, seed] = worker
            case Ended(digest, played):
                self._end((digest, played.seed), played)
            case Failed(digest, seed, what, where, why, do):
                error = CallError(what, where=where, why=why, do=do)
                self._end((digest, seed), FailedEpisode(seed, error))
            case Stopped():
                self.stopped = event
            case _:
                pass
        self.tell()

    def _end(self, which: Which, played: Episode | CutEpisode | FailedEpisode) -> None:
        self.unended.pop(which, None)
        if which in self.ended and not isinstance(self.ended[which], FailedEpisode):
            return
        self.ended[which] = played.tally if isinstance(played, Episode) else played
        if isinstance(played, Episode):
            self._places[which] = len(self.events) - 1


def _seen(event: Event) -> Seen:
    match event:
        case Ended(digest, played):
            return Over(digest, played.seed)
        case Failed(digest, seed):
            return Over(digest, seed)
        case _:
            return event


def _completion(row: sql.Row[Any]) -> Completion:
    tokens = (count(row.prompt_tokens), count(row.completion_tokens))  # an older record may hold any
    return Completion(row.text, row.finish_reason, *tokens, row.latency_s, row.attempts)
