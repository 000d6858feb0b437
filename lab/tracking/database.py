"""MLflow's own database file: made under another name and renamed once it is whole.

MLflow makes it in some hundred statements, a few seconds, and cannot continue where a kill ended it. A file
that such a kill left holds nothing and is moved aside. Servers and other databases are left to MLflow.
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import make_url

SEEDED = frozenset({"alembic_version", "workspaces"})
"""Tables in which a migration writes rows; in a whole database there is also an experiment, `Default`."""

STILL_S = 10.0
"""Seconds without a write after which nobody is making the database any more."""


def prepare(uri: str, say: Callable[[str], None]) -> None:
    """Make the database at `uri` if it is a file that is absent or half made.

    Args:
        say: gets a line where a half-made file was moved aside.

    Raises:
        OSError, sqlite3.Error, mlflow.MlflowException: it cannot be read or made.
    """
    path = database_file(uri)
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone_in(path.parent):
        if is_half_made(path):
            _wait_until_still(path)
            if is_half_made(path):
                say(f"MLflow's {path} was half made by a command that was killed: moved to {_aside(path)}.")
        if not path.exists():
            _make(path)


def database_file(uri: str) -> Path | None:
    """The SQLite file that a tracking URI names; None for anything else."""
    if not uri.startswith("sqlite:"):
        return None
    database = make_url(uri).database
    return Path(database) if database and not database.startswith((":memory:", "file:")) else None


def is_half_made(path: Path) -> bool:
    """Whether the file is a database in which MLflow has never finished its first start.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    if not path.is_file():
        return False
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=20)) as database:
        try:
            names = database.execute("select name from sqlite_master where type = 'table'").fetchall()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            return False  # no database at all: MLflow says so
        tables = {name for (name,) in names if not name.startswith("sqlite_")}
        return not any(_has_rows(database, table) for table in tables - SEEDED)


def _has_rows(database: sqlite3.Connection, table: str) -> bool:
    quoted = table.replace('"', '""')
    return database.execute(f'select 1 from "{quoted}" limit 1').fetchone() is not None


def _wait_until_still(path: Path) -> None:
    """Another process may be making it at this moment: `mlflow ui`, for one."""
    while is_half_made(path) and abs(time.time() - path.stat().st_mtime) < STILL_S:
        time.sleep(0.2)


def _aside(path: Path) -> Path:
    """Move the file to the first free name, with its journal, which must not meet a new database."""
    aside = next(one for number in count(1) if not (one := Path(f"{path}.broken-{number}")).exists())
    for suffix in ("-journal", "-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
    return aside


def _make(path: Path) -> None:
    import mlflow

    made = Path(f"{path}.new")
    for suffix in ("-journal", ""):  # of an earlier attempt that was killed
        Path(f"{made}{suffix}").unlink(missing_ok=True)
    made.touch()  # where nothing can be written, MLflow would try for minutes
    address = f"sqlite:///{quote(str(made))}"
    mlflow.MlflowClient(tracking_uri=address).search_experiments(max_results=1)
    made.rename(path)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep other commands of the lab from making a database in this folder at the same time."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)
