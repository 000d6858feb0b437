"""The Record: one study's calls and episodes, as seen by one of its workers.

A call is stored once, before its answer is used, and never repeated. Optuna's storage knows which trial an
episode belongs to; looking up calls is `lab.storage.call_cache`'s, an ending as text `lab.storage.endings`'.
"""

import asyncio
import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import sqlalchemy as sql
from pydantic import ValidationError

from lab.agent.episode import CutEpisode, Ending, Episode, FailedEpisode, Tally
from lab.agent.step import Troubles, total
from lab.errors import CallError, ConfigError, LabError, plain
from lab.experiment.budget import Prices, Spent
from lab.llm.client import Completion
from lab.llm.response import MOST_TOKENS, count
from lab.storage.database import Store, calls, episodes, failures, studies, unusable
from lab.storage.endings import columns_of, ending_of, episode_of
from lab.storage.keys import PROPOSALS, CallKey, EpisodeKey, episode_key

LATE = 200
"""Number of latest ids of which an unread one may still be stored: ids are given before transactions end."""


class NotFinishedError(ConfigError):
    """A result is requested, but the study has none yet."""


class Record:
    """One study's record.

    Attributes:
        document: The study's document, as JSON.
        worker: Unique name of this process.
        ended: The ending of each ended episode; `episode` has the texts.
        earlier_minutes: Working time of other processes before this one started, in minutes.
    """

    def __init__(self, store: Store, name: str, document: str) -> None:
        self.store, self.name, self.document = store, name, document
        self.worker = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.ended: dict[EpisodeKey, Ending] = {}
        self._read = set[int]()
        self.refresh()
        self.earlier_minutes = sum(until - since for since, until in self.stretches()) / 60

    def refresh(self) -> bool:
        """Read the episodes stored since the last call; returns whether there were any."""
        columns = (episodes.c.id, episodes.c.digest, episodes.c.seed, episodes.c.kind, episodes.c.ending)
        after = max(self._read, default=0) - LATE
        self._read = {one for one in self._read if one > after}
        unread = (episodes.c.id > after) & episodes.c.id.not_in(self._read)
        query = sql.select(*columns).where(episodes.c.study == self.name, unread)
        rows = self.store.rows(query.order_by(episodes.c.id))
        self._read |= {row.id for row in rows}
        with self._undamaged():
            for row in rows:
                self.ended[row.digest, row.seed] = ending_of(row.seed, row.kind, row.ending)
        return bool(rows)

    @property
    def began(self) -> float:
        """Start of the study, in seconds since 1970."""
        query = sql.select(studies.c.began).where(studies.c.name == self.name)
        return float(self.store.rows(query)[0].began)

    def change(self, document: str) -> None:
        """Replace the study's document."""
        mine = studies.c.name == self.name
        self.store.execute(sql.update(studies).where(mine).values(document=document))
        self.document = document

    def stretches(self) -> list[tuple[float, float]]:
        """The working periods of the study, as start and end in seconds since 1970, in order."""
        spans = list[tuple[float, float]]()
        for table, lasted in ((calls, calls.c.latency_s), (episodes, sql.literal(0.0))):
            first, last = sql.func.min(table.c.at - lasted), sql.func.max(table.c.at)
            ends = sql.select(first.label("since"), last.label("until"))
            mine = ends.where(table.c.study == self.name).group_by(table.c.worker)
            spans += [(float(row.since), float(row.until)) for row in self.store.rows(mine)]
        merged = list[tuple[float, float]]()
        for since, until in sorted(spans):
            if merged and since <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(until, merged[-1][1]))
            else:
                merged.append((since, until))
        return merged

    def ended_at(self) -> dict[EpisodeKey, float]:
        """End of each episode in seconds since 1970, in that order."""
        columns = (episodes.c.digest, episodes.c.seed, episodes.c.at)
        query = sql.select(*columns).where(episodes.c.study == self.name).order_by(episodes.c.id)
        return {(row.digest, row.seed): row.at for row in self.store.rows(query)}

    def episode(self, digest: str, seed: int) -> Episode:
        """A single episode of `episodes_of`."""
        (episode,) = self.episodes_of(digest, [seed])
        return episode

    def episodes_of(self, digest: str, seeds: Sequence[int]) -> list[Episode]:
        """A candidate's completed episodes with their texts, in the order of `seeds`; from any thread.

        Raises:
            KeyError: One of them is not completed.
        """
        played = self._texts((episodes.c.digest == digest) & episodes.c.seed.in_(seeds))
        return [played[digest, seed] for seed in seeds]

    def all_episodes_of(self, digests: Sequence[str]) -> dict[EpisodeKey, Episode]:
        """All completed episodes of these candidates with their texts."""
        return self._texts(episodes.c.digest.in_(digests))

    def _texts(self, which: sql.ColumnElement[bool]) -> dict[EpisodeKey, Episode]:
        mine = (episodes.c.study == self.name) & (episodes.c.kind == "ended") & which
        query = sql.select(episodes.c.digest, episodes.c.seed, episodes.c.episode).where(mine)
        with self._undamaged():
            return {(row.digest, row.seed): episode_of(row.episode) for row in self.store.rows(query)}

    def keep_episode(self, digest: str, played: Episode | CutEpisode | FailedEpisode) -> Ending:
        """Store an episode's ending; the first one counts unless it was a failure."""
        key = (digest, played.seed)
        if isinstance(self.ended.get(key), FailedEpisode):
            self.forget_failure(*key)
        row = {"study": self.name, "digest": digest, "seed": played.seed, "at": time.time()}
        row |= {"worker": self.worker, **columns_of(played)}
        if self.store.insert(episodes, row):
            self.ended[key] = played.tally if isinstance(played, Episode) else played
        else:
            self.refresh()
        return self.ended[key]

    def forget_failure(self, digest: str, seed: int) -> None:
        """Delete a failed episode, so that it is played again."""
        mine = (episodes.c.study == self.name, episodes.c.digest == digest, episodes.c.seed == seed)
        self.store.execute(sql.delete(episodes).where(*mine, episodes.c.kind == "failed"))
        if isinstance(self.ended.get((digest, seed)), FailedEpisode):
            del self.ended[digest, seed]

    @property
    def troubles(self) -> Troubles:
        """Troubles of all steps of the ended episodes."""
        return total(one.troubles for one in self.ended.values() if isinstance(one, Tally | CutEpisode))

    @property
    def episodes(self) -> int:
        """Number of completed episodes."""
        return sum(isinstance(one, Tally) for one in self.ended.values())

    def calls_of(self, scope: str) -> dict[CallKey, Completion]:
        """The calls of one scope."""
        mine = sql.select(calls).where(calls.c.study == self.name, calls.c.scope == scope)
        return {
            CallKey(row.scope, row.key, row.occurrence): _completion(row) for row in self.store.rows(mine)
        }

    def unused_calls(self) -> Counter[EpisodeKey]:
        """Number of recorded calls of each unfinished episode: it needs only the others."""
        number = sql.func.count().label("number")
        of_episodes = (calls.c.study == self.name) & (calls.c.scope != PROPOSALS)
        scopes = sql.select(calls.c.scope, number).where(of_episodes).group_by(calls.c.scope)
        counts = {episode_key(row.scope): row.number for row in self.store.rows(scopes)}
        return Counter({key: made for key, made in counts.items() if key not in self.ended})

    async def keep_call(self, key: CallKey, request: str, completion: Completion, model: str = "") -> bool:
        """Store an answered call; False if another worker got an answer first: this one is only counted.

        Args:
            model: Name of the model in the space, if it is not the baseline's.
        """
        row = {"study": self.name, "at": time.time(), "worker": self.worker, "model": model or None}
        row |= {**vars(key), "request": request, **vars(completion)}
        row |= {"thinking": completion.thinking or sql.null()}
        if not self.store.shared:
            return self.store.insert(calls, row)
        is_first = await asyncio.to_thread(self.store.insert, calls, row)  # a server's answer takes time
        if not is_first:
            tokens = completion.prompt_tokens, completion.completion_tokens
            self._keep_unusable(tokens, proposals=key.scope == PROPOSALS, model=model)
        return is_first

    def keep_failure(self, error: LabError, *, proposals: bool = False, model: str = "") -> None:
        """Store a failed attempt at a call, with its tokens if it was answered.

        Args:
            proposals: Whether the call was to a separate proposing model.
            model: See `keep_call`.
        """
        row = {"study": self.name, "at": time.time(), "what": plain(error.what), "why": plain(error.why)}
        self.store.insert(failures, row)
        if isinstance(error, CallError) and error.answered is not None:
            self._keep_unusable(error.answered, proposals=proposals, model=model)

    def _keep_unusable(self, tokens: tuple[int, int], *, proposals: bool, model: str) -> None:
        """Store the tokens, of the prompt and of the completion, of an answer that is not in `calls`."""
        counts = dict(zip(("prompt_tokens", "completion_tokens"), tokens, strict=True))
        place = {"study": self.name, "worker": self.worker, "model": model or None}
        self.store.insert(unusable, {**place, **counts, "proposals": proposals})

    def failures(self) -> dict[str, int]:
        """Number of failed attempts by what happened, most frequent first."""
        times = sql.func.count().label("times")
        query = (
            sql.select(failures.c.what, times)
            .where(failures.c.study == self.name)
            .group_by(failures.c.what)
            .order_by(times.desc(), failures.c.what)
        )
        return {row.what: row.times for row in self.store.rows(query)}

    def spent_elsewhere(
        self, prices: Prices, *, proposals: bool, model: str = "", everywhere: bool = False
    ) -> Spent:
        """The amounts that other processes spent on a model's episodes, or on proposals.

        Args:
            model: See `keep_call`.
            everywhere: Whether to include this process.
        """
        worker, of_kind = "" if everywhere else self.worker, calls.c.scope == PROPOSALS
        more = (calls.c.thinking_tokens, sql.case((calls.c.estimated, 1)))
        useful = self._sums(calls, of_kind if proposals else ~of_kind, model, worker, *more)
        useless = self._sums(unusable, unusable.c.proposals == proposals, model, worker)
        made, tokens_in, tokens_out = map(sum, zip(useful[:3], useless, strict=True))
        thinking_tokens, estimated = useful[3:]
        return Spent(
            calls=made,
            prompt_tokens=tokens_in,
            completion_tokens=tokens_out,
            dollars=prices.dollars(tokens_in, tokens_out),
            unpriced=0 if prices.known else made,
            useless=useless[0],
            thinking_tokens=thinking_tokens,
            estimated=estimated,
        )

    def _sums(
        self,
        table: sql.Table,
        which: sql.ColumnElement[bool],
        model: str,
        worker: str,
        *more: sql.ColumnElement[Any],
    ) -> list[int]:
        """Number of a model's rows but those of `worker`; sums of their plausible tokens and of `more`."""
        mine = (table.c.study == self.name) & (sql.func.coalesce(table.c.model, "") == model)
        tokens = (table.c.prompt_tokens, table.c.completion_tokens)
        counted = (sql.case((each.between(0, MOST_TOKENS), each)) for each in tokens)
        sums = [sql.func.count(), *(sql.func.sum(each) for each in (*counted, *more))]
        found = self.store.rows(sql.select(*sums).where(mine, which, table.c.worker != worker))[0]
        return [int(each or 0) for each in found]

    @contextmanager
    def _undamaged(self) -> Iterator[None]:
        """Translate the error of a text in it that cannot be read."""
        try:
            yield
        except ValidationError as error:
            what, where = "The study's record is damaged.", f"{self.name} in {self.store.where}"
            do = "use --fresh to start a new study"
            raise LabError(what, where=where, why=str(error), do=do) from None


def _completion(row: sql.Row[Any]) -> Completion:
    tokens = (count(row.prompt_tokens), count(row.completion_tokens))  # an older record may contain anything
    said = Completion(row.text, row.finish_reason, *tokens, row.latency_s, row.attempts)
    thought = (row.thinking or "", count(row.thinking_tokens))
    return replace(said, thinking=thought[0], thinking_tokens=thought[1], estimated=bool(row.estimated))
