"""The Store: the database that holds every model call and every episode of every study.

It owns the tables, their location, and the errors for a failing disk or database. Reading and writing one
study is `lab.storage.record`'s. SQLite in WAL mode keeps what a killed process has written; PostgreSQL serves
several machines.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError

from lab.errors import ConfigError, LabError, plain
from lab.files import alone_in

CALLS = Path(".lab/calls.db")

BUSY_S = 30
"""Maximum seconds that a write waits for another process's."""

CONNECTIONS = 5
"""Maximum connections of one process's store; more would be opened and closed again at each peak."""

SCHEMA = "lab"
"""Schema of the tables on PostgreSQL, because the same database holds Optuna's."""

_LOCK = 5_122_600_411
"""Key of the PostgreSQL advisory lock for exclusive sections; an arbitrary number."""

_tables = sql.MetaData(schema=SCHEMA)

studies = sql.Table(
    "studies",
    _tables,
    sql.Column("name", sql.Text, primary_key=True),
    sql.Column("experiment", sql.Text, nullable=False, index=True),
    sql.Column("document", sql.Text, nullable=False),
    sql.Column("began", sql.Float, nullable=False),
)

episodes = sql.Table(
    "episodes",
    _tables,
    sql.Column("id", sql.Integer, primary_key=True),  # in the order of storing
    sql.Column("study", sql.ForeignKey(studies.c.name), nullable=False),
    sql.Column("digest", sql.Text, nullable=False),
    sql.Column("seed", sql.Integer, nullable=False),
    sql.Column("at", sql.Float, nullable=False),
    sql.Column("worker", sql.Text, nullable=False),
    sql.Column("kind", sql.Text, nullable=False),
    sql.Column("ending", sql.Text, nullable=False),  # the ending, without texts
    sql.Column("episode", sql.Text, nullable=False),  # the whole episode, if it was completed
    sql.UniqueConstraint("study", "digest", "seed"),
)

calls = sql.Table(
    "calls",
    _tables,
    sql.Column("study", sql.ForeignKey(studies.c.name), primary_key=True),
    sql.Column("scope", sql.Text, primary_key=True),
    sql.Column("key", sql.Text, primary_key=True),
    sql.Column("occurrence", sql.Integer, primary_key=True),
    sql.Column("at", sql.Float, nullable=False),
    sql.Column("worker", sql.Text, nullable=False),
    sql.Column("request", sql.Text, nullable=False),
    sql.Column("text", sql.JSON, nullable=False),  # PostgreSQL's text type cannot store NUL
    sql.Column("finish_reason", sql.Text, nullable=False),
    sql.Column("prompt_tokens", sql.Integer, nullable=False),
    sql.Column("completion_tokens", sql.Integer, nullable=False),
    sql.Column("latency_s", sql.Float, nullable=False),
    sql.Column("attempts", sql.Integer, nullable=False),
    sql.Column("thinking", sql.JSON),  # as `text`; null without thinking, and in earlier versions
    sql.Column("thinking_tokens", sql.Integer),
    sql.Column("estimated", sql.Boolean),
    sql.Column("model", sql.Text),  # its name in the space, if it is not the baseline's
)

failures = sql.Table(
    "failures",
    _tables,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("study", sql.ForeignKey(studies.c.name), nullable=False, index=True),
    sql.Column("at", sql.Float, nullable=False),
    sql.Column("what", sql.Text, nullable=False),
    sql.Column("why", sql.Text, nullable=False),
)

unusable = sql.Table(
    "unusable",  # answers that could not be used, or that another worker had too, but that were paid for
    _tables,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("study", sql.ForeignKey(studies.c.name), nullable=False, index=True),
    sql.Column("worker", sql.Text, nullable=False),
    sql.Column("proposals", sql.Boolean, nullable=False),
    sql.Column("prompt_tokens", sql.Integer, nullable=False),
    sql.Column("completion_tokens", sql.Integer, nullable=False),
    sql.Column("model", sql.Text),  # as in `calls`
)


class Store:
    """An open database: a file, or `postgresql://...`, which several processes may share.

    Attributes:
        where: The location for people, without a password.
        shared: Whether other processes may write to it.
        trials_url: URL of Optuna's storage in it; empty for a file.

    Raises:
        ConfigError: The URL is invalid.
        LabError: Here and in all reads and writes: the database or the disk failed.
    """

    def __init__(self, place: Path | str = CALLS) -> None:
        self.shared = isinstance(place, str)
        self._leading: dict[str, sql.Connection] = {}
        if isinstance(place, str):
            url = _postgres(place)
            self.where, self.trials_url = url.render_as_string(), _trials_of(url)
            options: dict[str, Any] = {"pool_pre_ping": True, "pool_size": CONNECTIONS, "max_overflow": 0}
        else:
            url, self.where, self.trials_url = sql.URL.create("sqlite", database=str(place)), str(place), ""
            place.parent.mkdir(parents=True, exist_ok=True)
            tables = {"schema_translate_map": {SCHEMA: None}}
            options = {"connect_args": {"timeout": BUSY_S}, "execution_options": tables}
        try:
            self._engine = sql.create_engine(url, **options)
        except ImportError:
            do = 'pip install "prompt-lab[workers]"'
            raise ConfigError("The PostgreSQL driver is not installed.", where=self.where, do=do) from None
        if not self.shared:
            sql.event.listen(self._engine, "connect", _tune_sqlite)
        # Else two studies that start at once both create the tables, or are refused the change to WAL.
        alone = self.exclusively() if isinstance(place, str) else alone_in(place.parent)
        with self.translated_errors(), alone, self._engine.begin() as connection:
            if self.shared:
                connection.execute(sql.schema.CreateSchema(SCHEMA, if_not_exists=True))
            _tables.create_all(connection)
            self._add_columns(connection)

    def close(self) -> None:
        """Close the connections."""
        for connection in self._leading.values():
            connection.close()
        self._engine.dispose()

    def is_led(self, study: str) -> bool:
        """Whether a process is the study's `lead` now; always False on a file, where it is unknown."""
        if not self.lead(study):
            return True
        if (connection := self._leading.pop(study, None)) is not None:
            with self.translated_errors():
                connection.execute(sql.select(sql.func.pg_advisory_unlock_all()))
                connection.close()
        return False

    def lead(self, study: str) -> bool:
        """Become the leader of a study's workers if none leads, and return whether this process leads.

        It leads until it ends. On a file, the only process leads.
        """
        if not self.shared or study in self._leading:
            return True
        with self.translated_errors():
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            lock = sql.func.pg_try_advisory_lock(
                sql.cast(_LOCK % 2**31, sql.Integer), sql.func.hashtext(study)
            )
            if connection.execute(sql.select(lock)).scalar():
                self._leading[study] = connection
                return True
            connection.close()
        return False

    def begin(self, experiment: str, document: str) -> str:
        """Add a study and return its name. It is the latest even if the clock was set back."""
        began = sql.select(sql.func.max(studies.c.began)).where(studies.c.experiment == experiment)
        before = self.rows(began)[0][0] or 0.0
        name = base = f"{experiment}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
        row = {"experiment": experiment, "document": document, "began": max(time.time(), before + 0.001)}
        number = 1
        while not self.insert(studies, {"name": name, **row}):
            number += 1
            name = f"{base}-{number}"
        return name

    def latest(self, experiment: str) -> tuple[str, str] | None:
        """Name and document of the experiment's last study; None if it has none."""
        return self._last(studies.c.experiment == experiment)

    def study(self, name: str) -> tuple[str, str] | None:
        """Name and document of a study; None if it does not exist."""
        return self._last(studies.c.name == name)

    def _last(self, which: sql.ColumnElement[bool]) -> tuple[str, str] | None:
        query = sql.select(studies.c.name, studies.c.document).where(which)
        found = self.rows(query.order_by(studies.c.began.desc()).limit(1))
        return (found[0].name, found[0].document) if found else None

    def names(self) -> list[str]:
        """Names of all studies, oldest first."""
        return [row.name for row in self.rows(sql.select(studies.c.name).order_by(studies.c.began))]

    def rows(self, query: sql.Select[Any]) -> list[sql.Row[Any]]:
        """The rows of a query."""
        with self.translated_errors(), self._engine.connect() as connection:
            return list(connection.execute(query))

    def insert(self, table: sql.Table, row: Mapping[str, object]) -> bool:
        """Write and commit a row; False if one with its key exists already."""
        with self.translated_errors():
            try:
                with self._engine.begin() as connection:
                    connection.execute(table.insert(), dict(row))
            except IntegrityError:
                return False
        return True

    def execute(self, statement: sql.Insert | sql.Update | sql.Delete) -> None:
        """Execute and commit a statement."""
        with self.translated_errors(), self._engine.begin() as connection:
            connection.execute(statement)

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Exclude other processes from such blocks; on a file a lock already does."""
        with self.translated_errors(), self._engine.begin() if self.shared else nullcontext() as connection:
            if connection is not None:
                connection.execute(sql.select(sql.func.pg_advisory_xact_lock(_LOCK)))
            yield

    @contextmanager
    def translated_errors(self) -> Iterator[None]:
        """Translate the database's exceptions into LabErrors."""
        try:
            yield
        except SQLAlchemyError as error:
            what = "The study's record cannot be read or written."
            raise refused(what, self.where, error, server=self.shared) from None

    def _add_columns(self, connection: sql.Connection) -> None:
        """Add the columns that an earlier version did not have."""
        for table in (calls, unusable):
            found = sql.inspect(connection).get_columns(table.name, SCHEMA if self.shared else None)
            missing = {column.name for column in table.columns} - {column["name"] for column in found}
            where = f"{SCHEMA}.{table.name}" if self.shared else table.name
            for name in sorted(missing):
                kind = table.columns[name].type.compile(connection.dialect)
                connection.execute(sql.text(f"ALTER TABLE {where} ADD COLUMN {name} {kind}"))


def refused(what: str, where: str, error: Exception, *, server: bool) -> LabError:
    """The error for a database's exception.

    Args:
        server: Whether it is a server, and not a file.
    """
    fix = "check that it runs and accepts this user" if server else "free some space or repair it"
    why = plain(" ".join(str(getattr(error, "orig", None) or error).split()))
    return LabError(what, where=where, why=why, do=f"{fix}, and run the same command to resume")


def _postgres(address: str) -> sql.URL:
    try:
        url = sql.make_url(address)
    except ArgumentError:
        url = sql.URL.create("none")
    if url.get_backend_name() not in ("postgresql", "postgres") or not url.database:
        what, do = "Invalid storage URL.", "use postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
        raise ConfigError(what, where="--storage or LAB_STORAGE", do=do)
    return url.set(drivername="postgresql+psycopg")


def _trials_of(url: sql.URL) -> str:
    """Optuna's URL: with the schema `public`, because a user named like `SCHEMA` would get our tables."""
    return url.update_query_dict({"options": "-csearch_path=public"}).render_as_string(hide_password=False)


def _tune_sqlite(connection: Any, _: object) -> None:  # noqa: ANN401  # the driver's
    # With WAL and NORMAL a commit survives the process at once, and the machine after a checkpoint.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
