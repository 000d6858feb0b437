"""The Store: every study's journal and every model call, in a database.

It owns the tables, and what a failing disk or database is called. What an entry means is `lab.journal`'s;
when a call is looked up instead of made is `lab.recorded`'s. SQLite in WAL mode keeps what was written when
the process is killed.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from lab.endpoint import Completion
from lab.errors import ConfigError, LabError
from lab.journal import Ended, Event, Judged, Opened, event_json, read_event

CALLS = Path(".lab/calls.db")

PROPOSALS = "proposals"
"""The scope of the calls that propose texts; every other scope is an episode's."""

BUSY_S = 30
"""Seconds that a write waits for another process's."""

_tables = sql.MetaData()

_studies = sql.Table(
    "studies",
    _tables,
    sql.Column("name", sql.Text, primary_key=True),
    sql.Column("experiment", sql.Text, nullable=False, index=True),
    sql.Column("document", sql.Text, nullable=False),
    sql.Column("began", sql.Float, nullable=False),
)

_events = sql.Table(
    "events",
    _tables,
    sql.Column("study", sql.ForeignKey("studies.name"), primary_key=True),
    sql.Column("number", sql.Integer, primary_key=True),
    sql.Column("at", sql.Float, nullable=False),
    sql.Column("body", sql.Text, nullable=False),
)

_calls = sql.Table(
    "calls",
    _tables,
    sql.Column("study", sql.ForeignKey("studies.name"), primary_key=True),
    sql.Column("scope", sql.Text, primary_key=True),
    sql.Column("key", sql.Text, primary_key=True),
    sql.Column("occurrence", sql.Integer, primary_key=True),
    sql.Column("at", sql.Float, nullable=False),
    sql.Column("request", sql.Text, nullable=False),
    sql.Column("text", sql.Text, nullable=False),
    sql.Column("finish_reason", sql.Text, nullable=False),
    sql.Column("prompt_tokens", sql.Integer, nullable=False),
    sql.Column("completion_tokens", sql.Integer, nullable=False),
    sql.Column("latency_s", sql.Float, nullable=False),
    sql.Column("attempts", sql.Integer, nullable=False),
)

_failures = sql.Table(
    "failures",
    _tables,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("study", sql.ForeignKey("studies.name"), nullable=False, index=True),
    sql.Column("at", sql.Float, nullable=False),
    sql.Column("what", sql.Text, nullable=False),
    sql.Column("why", sql.Text, nullable=False),
)


@dataclass(frozen=True)
class Spent:
    """What the recorded calls come to."""

    calls: int
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class CallKey:
    """Which call of a study: who asked, the request's digest, and the how-manieth such request it was."""

    scope: str
    key: str
    occurrence: int


class NothingRecordedError(ConfigError):
    """A replay needs what was never recorded."""


class Store:
    """An open database.

    Raises:
        LabError: here and in everything that reads or writes: the database or the disk refused.
    """

    def __init__(self, path: Path = CALLS) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.where = str(path)
        self._engine = sql.create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_S})
        sql.event.listen(self._engine, "connect", _tune_sqlite)
        with self.told():
            _tables.create_all(self._engine)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def begin(self, name: str, experiment: str, document: str) -> "Record":
        """A new study's record; `document` is all that it depends on."""
        row = {"name": name, "experiment": experiment, "document": document, "began": time.time()}
        with self.writing() as connection:
            connection.execute(_studies.insert().values(row))
        return Record(self, name, document)

    def latest(self, experiment: str) -> "Record | None":
        """The record of the experiment's last study, if there is one."""
        last = (
            sql.select(_studies.c.name, _studies.c.document)
            .where(_studies.c.experiment == experiment)
            .order_by(_studies.c.began.desc())
            .limit(1)
        )
        found = self.rows(last)
        return Record(self, found[0].name, found[0].document) if found else None

    def rows(self, query: sql.Select[Any]) -> list[sql.Row[Any]]:
        """All rows of a query."""
        with self.told(), self._engine.connect() as connection:
            return list(connection.execute(query))

    @contextmanager
    def writing(self) -> Iterator[sql.Connection]:
        """A transaction, committed at its end."""
        with self.told(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def told(self) -> Iterator[None]:
        """What the database raises, in the lab's words."""
        try:
            yield
        except SQLAlchemyError as error:
            why = str(getattr(error, "orig", None) or error)
            do = "free some space or repair it; the same command goes on where it was"
            raise LabError(
                "The study's record cannot be read or written.", where=self.where, why=why, do=do
            ) from error


class Record:
    """One study's record: its journal and its calls.

    Attributes:
        document: what the study depends on, as it was when it began.
        events: the journal so far.
        sealed: nothing is written any more; what would have to be was not recorded.
    """

    def __init__(self, store: Store, name: str, document: str) -> None:
        self.name, self.document, self.sealed = name, document, False
        self._store = store
        journal = sql.select(_events.c.at, _events.c.body).where(_events.c.study == name)
        rows = store.rows(journal.order_by(_events.c.number))
        try:
            self.events: list[Event] = [read_event(row.body) for row in rows]
        except ValidationError as error:
            where, do = f"{name} in {store.where}", "--fresh begins a new study"
            raise LabError("The study's journal is damaged.", where=where, why=str(error), do=do) from None
        self.earlier_minutes = _minutes(
            [(row.at, event) for row, event in zip(rows, self.events, strict=True)]
        )

    def append(self, event: Event) -> None:
        """Write the next entry; it is kept when this returns.

        Raises:
            NothingRecordedError: the record is sealed.
        """
        if self.sealed:
            raise self.ends_here()
        row = {"study": self.name, "number": len(self.events), "at": time.time(), "body": event_json(event)}
        with self._store.writing() as connection:
            connection.execute(_events.insert().values(row))
        self.events.append(event)

    def seal(self) -> None:
        """Allow no further entry: this is a replay."""
        self.sealed = True

    def ends_here(self) -> NothingRecordedError:
        """The error of a replay that needs more than there is."""
        calls = sum(self.spent(proposals=kind).calls for kind in (False, True))
        what = f"The record ends here: {calls:,} calls in {len(self.ended())} episodes, and no verdict."
        do = "the same command without --replay goes on from here"
        return NothingRecordedError(what, where=f"{self.name} in {self._store.where}", do=do)

    @property
    def judged(self) -> Judged | None:
        """When and after how long the verdict was given; None where it was not."""
        return next((event for event in self.events if isinstance(event, Judged)), None)

    def ended(self) -> dict[tuple[str, int], Ended]:
        """The episodes that have ended, by candidate's digest and seed."""
        return {(event.digest, event.played.seed): event for event in self.events if isinstance(event, Ended)}

    def calls_of(self, scope: str) -> dict[CallKey, Completion]:
        """The calls of one scope."""
        mine = sql.select(_calls).where(_calls.c.study == self.name, _calls.c.scope == scope)
        return {
            CallKey(row.scope, row.key, row.occurrence): _completion(row) for row in self._store.rows(mine)
        }

    def keep_call(self, key: CallKey, request: str, completion: Completion) -> None:
        """Write a call that was answered."""
        with self._store.writing() as connection:
            connection.execute(
                _calls.insert().values(
                    study=self.name,
                    scope=key.scope,
                    key=key.key,
                    occurrence=key.occurrence,
                    at=time.time(),
                    request=request,
                    text=completion.text,
                    finish_reason=completion.finish_reason,
                    prompt_tokens=completion.prompt_tokens,
                    completion_tokens=completion.completion_tokens,
                    latency_s=completion.latency_s,
                    attempts=completion.attempts,
                )
            )

    def keep_failure(self, error: LabError) -> None:
        """Write an attempt at a call that failed."""
        row = {"study": self.name, "at": time.time(), "what": error.what, "why": error.why}
        with self._store.writing() as connection:
            connection.execute(_failures.insert().values(row))

    def failures(self) -> dict[str, int]:
        """How many attempts failed, by what happened; the most frequent first."""
        times = sql.func.count().label("times")
        query = (
            sql.select(_failures.c.what, times)
            .where(_failures.c.study == self.name)
            .group_by(_failures.c.what)
            .order_by(times.desc(), _failures.c.what)
        )
        return {row.what: row.times for row in self._store.rows(query)}

    def spent(self, *, proposals: bool) -> Spent:
        """What was spent on episodes, or on proposals."""
        of_kind = (_calls.c.scope == PROPOSALS) if proposals else (_calls.c.scope != PROPOSALS)
        sums = sql.select(
            sql.func.count(),
            sql.func.coalesce(sql.func.sum(_calls.c.prompt_tokens), 0),
            sql.func.coalesce(sql.func.sum(_calls.c.completion_tokens), 0),
        ).where(_calls.c.study == self.name, of_kind)
        return Spent(*map(int, self._store.rows(sums)[0]))


def _completion(row: sql.Row[Any]) -> Completion:
    tokens = (row.prompt_tokens, row.completion_tokens)
    return Completion(row.text, row.finish_reason, *tokens, row.latency_s, row.attempts)


def _minutes(journal: list[tuple[float, Event]]) -> float:
    """Minutes of work: of each process from its opening to the last that it wrote."""
    opened_s, last_s, worked_s = 0.0, 0.0, 0.0
    for at, event in journal:
        if isinstance(event, Opened):
            worked_s += last_s - opened_s
            opened_s = at
        last_s = at
    return (worked_s + last_s - opened_s) / 60


def _tune_sqlite(connection: Any, _: object) -> None:  # noqa: ANN401  # the driver's
    # With WAL and NORMAL a commit outlives the process at once, and the machine within moments.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
